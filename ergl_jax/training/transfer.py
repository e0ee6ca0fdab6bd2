"""What a state takes from elsewhere before the first step: band statistics, pretrained weights."""

import jax
import numpy as np

from ergl_jax import bundle as bundles
from ergl_jax.audio import FrontEnd
from ergl_jax.config import ModelConfig
from ergl_jax.datasets.builder import SceneDataset
from ergl_jax.errors import InputError
from ergl_jax.hub import bundle_path
from ergl_jax.systems import SYSTEMS
from ergl_jax.training.device_data import band_statistics
from ergl_jax.training.step import TrainState


def initialise(
    state: TrainState, config: ModelConfig, dataset: SceneDataset
) -> tuple[TrainState, str]:
    """A new state with the training split's band statistics, and the weights of `config.init_from`.

    Returns the origin of these weights too, "" for random ones. Raises as `start_pretrained`.
    """
    if "standardise" in state.batch_stats:
        mean, std = band_statistics(dataset.split("train"))
        bands = {"standardise": {"mean": mean, "deviation": std}}
        state = state.replace(batch_stats=state.batch_stats | bands)
    if not config.init_from:
        return state, ""
    return start_pretrained(state, config, dataset.front_end)


def start_pretrained(
    state: TrainState, config: ModelConfig, front_end: FrontEnd
) -> tuple[TrainState, str]:
    """Takes the weights and running statistics of the encoder from `config.init_from`.

    A `pann_scene` also takes the PANN's other layers; everything else stays random.

    Args:
      state: before the first step.
      config: init_from is a bundle of any model.
      front_end: of the data to train on.

    Returns:
      The new state, and the origin of its weights in words.

    Raises:
      InputError: the bundle is missing, or its encoder or front end is another.
    """
    path = bundle_path(config.init_from)
    field = f"model.init_from={path}"
    parts = [name for name in SYSTEMS[config.name].pretrained if name in state.params]
    if not parts:
        raise InputError(f"{field}: model.name={config.name!r} has no encoder to initialise")
    bundle = bundles.load(path)
    for name in ("architecture", "width_divisor"):
        theirs, mine = getattr(bundle.model.encoder, name), getattr(config.encoder, name)
        if theirs != mine:
            raise InputError(
                f"{field} has model.encoder.{name}={theirs}, not {mine}: "
                f"set model.encoder.{name}={theirs}"
            )
    if bundle.front_end != front_end:
        raise InputError(
            f"{field} has front end {bundle.front_end.setting!r}, not {front_end.setting!r}: "
            f"set data.front_end={bundle.front_end.setting}"
        )
    found = bundle.variables["params"]
    for name in parts:
        shapes = jax.tree.map(np.shape, (found.get(name), state.params[name]))
        if shapes[0] != shapes[1]:
            raise InputError(
                f"{field} has no {name} of this size: give the bundle of a PANN such as Cnn14"
            )
    params, batch_stats = (
        mine | {name: bundle.variables[kind][name] for name in parts if name in mine}
        for kind, mine in (("params", state.params), ("batch_stats", state.batch_stats))
    )
    origin = bundle.source or f"a model trained on {bundle.dataset}"
    source = f"encoder initialised from {origin} (licence: {bundle.licence})"
    return state.replace(params=params, batch_stats=batch_stats), source
