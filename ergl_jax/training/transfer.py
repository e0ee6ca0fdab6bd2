"""A model whose encoder, or all of a PANN, starts from a bundle's weights and not from chance."""

import jax
import numpy as np

from ergl_jax import registry
from ergl_jax.audio import FrontEnd
from ergl_jax.bundle import load
from ergl_jax.errors import InputError
from ergl_jax.files import user_path
from ergl_jax.training.step import TrainState


def start_pretrained(state: TrainState, config, front_end: FrontEnd) -> tuple[TrainState, str]:
    """A first state with the encoder of `config.init_from`, and what to say of its origin.

    Weights and running statistics are taken; all that follows the encoder stays as it was, but for
    the layers of a PANN in a `pann_scene`.

    Args:
      state: before the first step.
      config: a `config.model`; its init_from names a bundle of any model.
      front_end: of the data that are to be trained on.

    Raises:
      InputError: no bundle there, one with another encoder or front end, or no PANN where that is
        asked for; a model that can't start from one.
    """
    path = user_path(config.init_from)
    parts = [name for name in registry.system(config.name).pretrained if name in state.params]
    if not parts:
        raise InputError(
            f"model.init_from={path}: model.name={config.name!r} has no encoder to start with it"
        )
    bundle = load(path)
    encoder = bundle.model["encoder"]
    for field in ("architecture", "width_divisor"):
        if encoder[field] != config.encoder[field]:
            raise InputError(
                f"model.init_from={path} has model.encoder.{field}={encoder[field]}, not "
                f"{config.encoder[field]}: set --config.model.encoder.{field}={encoder[field]}"
            )
    if bundle.front_end != front_end:
        raise InputError(
            f"model.init_from={path} has front end {bundle.front_end.name!r}, not "
            f"{front_end.name!r}: set --config.data.front_end={bundle.front_end.name}"
        )
    theirs = bundle.variables["params"]
    for name in parts:
        if name not in theirs:
            raise InputError(f"model.init_from={path} has no {name}: name the bundle of a PANN")
        if jax.tree.map(np.shape, theirs[name]) != jax.tree.map(np.shape, state.params[name]):
            raise InputError(f"model.init_from={path}: its {name} is of another size")
    params, batch_stats = (
        mine | {name: bundle.variables[kind][name] for name in parts if name in mine}
        for kind, mine in (("params", state.params), ("batch_stats", state.batch_stats))
    )
    origin = bundle.source or f"a model trained on {bundle.dataset}"
    source = f"encoder begun with {origin} (licence: {bundle.licence})"
    return state.replace(params=params, batch_stats=batch_stats), source
