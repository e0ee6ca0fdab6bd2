"""Models by name: `build(config.model, ...)`.

Every system of the paper's tables is one of SYSTEMS; its file says where it comes from.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from ergl_jax.baselines.abcnn import ABCNN
from ergl_jax.baselines.attention_crnn import AttentionCRNN
from ergl_jax.baselines.cnn import CNN
from ergl_jax.baselines.conditional import Conditional
from ergl_jax.baselines.dcase2018 import DCASE2018
from ergl_jax.baselines.joint import Joint
from ergl_jax.baselines.mltf import MLTF
from ergl_jax.baselines.mtl import MTL
from ergl_jax.baselines.nnf import NNFCNN, NNFEnsemble
from ergl_jax.baselines.pann_scene import PANNScene
from ergl_jax.baselines.rgasc import RGASC
from ergl_jax.baselines.surrey import SurreyCNN
from ergl_jax.baselines.wavelet_crnn import WaveletCRNN
from ergl_jax.errors import InputError
from ergl_jax.models.ergl import ERGL, check_num_events
from ergl_jax.models.panns import PANN, Encoder

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Shared(NamedTuple):
    """What every system is built with, besides its own fields of the configuration."""

    num_scenes: int
    num_events: int
    axis_name: str | None
    dtype: jnp.dtype


class System(NamedTuple):
    """A model and what a run must know of it.

    Attributes:
      build: (config.model, Shared) -> its module.
      events: whether it learns events beside the scene.
      pretrained: its submodules that `model.init_from` may give weights to.
      variants: what `model.variant` may be; none: the system has one form.
    """

    build: Callable
    events: bool = False
    pretrained: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()


def build(config, *, num_scenes: int, num_events: int, axis_name: str | None = None) -> nn.Module:
    """The model that a `config.model` names; its fields are commented in configs/ergl.py.

    `axis_name` is the mapped axis over which BatchNorm shares its statistics in training.
    """
    if config.compute_dtype not in DTYPES:
        raise InputError(
            f"model.compute_dtype={config.compute_dtype!r} is not one of: {', '.join(DTYPES)}"
        )
    _at_least_one("model.encoder.width_divisor", config.encoder.width_divisor)
    _rate("model.encoder.dropout", config.encoder.dropout)
    _rate("model.dropout", config.dropout)
    shared = Shared(num_scenes, num_events, axis_name, DTYPES[config.compute_dtype])
    found = system(config.name)
    if found.variants:  # others pass over it: a bundle of theirs may have none, or another's
        check_variant(config)
    return found.build(config, shared)


def check_variant(config) -> None:
    """InputError where a `config.model` has a variant that its system has not."""
    known = system(config.name).variants
    if config.variant not in (known or ("",)):
        raise InputError(
            f"model.variant={config.variant!r} is not one that {config.name!r} has: "
            f"{', '.join(known) or 'none, leave it empty'}"
        )


def system(name: str) -> System:
    """The system of this name, or an InputError that lists the names."""
    if name not in SYSTEMS:
        raise InputError(f"model.name={name!r} is not one of: {', '.join(SYSTEMS)}")
    return SYSTEMS[name]


def _encoder(config, shared: Shared) -> Encoder:
    return Encoder(
        architecture=config.encoder.architecture,
        width_divisor=config.encoder.width_divisor,
        dropout=config.encoder.dropout,
        axis_name=shared.axis_name,
        dtype=shared.dtype,
    )


def _ergl(config, shared: Shared) -> ERGL:
    check_num_events(shared.num_events)
    _at_least_one("model.channels", config.channels)
    _at_least_one("model.gcn.layers", config.gcn.layers)
    return ERGL(
        num_scenes=shared.num_scenes,
        num_events=shared.num_events,
        encoder=_encoder(config, shared),
        channels=config.channels,
        tokens=config.tokens,
        mel=config.mel,
        gcn_layers=config.gcn.layers,
        gate=config.gcn.gate,
        dropout=config.dropout,
        axis_name=shared.axis_name,
        dtype=shared.dtype,
    )


def _cnn(config, shared: Shared) -> CNN:
    return CNN(shared.num_scenes, _encoder(config, shared), config.dropout)


def _pann(config, shared: Shared) -> PANN:
    if shared.num_scenes:
        raise InputError(
            "model.name='pann' tags events and knows no scenes: train 'pann_scene', or let "
            "another model start from a PANN by model.init_from"
        )
    return PANN(shared.num_events, _encoder(config, shared), config.dropout)


def _pann_scene(config, shared: Shared) -> PANNScene:
    return PANNScene(
        num_scenes=shared.num_scenes,
        encoder=_encoder(config, shared),
        head_on=config.variant,
        frozen=config.frozen,
        dropout=config.dropout,
    )


def _of_its_own(module: type, *, events: bool = False) -> System:
    """A system that has its own layers and sizes, all divided by `encoder.width_divisor`."""

    def build(config, shared: Shared) -> nn.Module:
        sizes = {"num_scenes": shared.num_scenes}
        if events:
            if shared.num_events < 1:
                raise InputError(f"model.name={config.name!r} needs events: see data.num_events")
            sizes["num_events"] = shared.num_events
        return module(**sizes, **_common(config, shared))

    return System(build, events)


def _nnf(config, shared: Shared) -> nn.Module:
    if config.variant == "ensemble":
        return NNFEnsemble(shared.num_scenes, **_common(config, shared))
    return NNFCNN(shared.num_scenes, input=config.variant, **_common(config, shared))


def _mltf(config, shared: Shared) -> MLTF:
    return MLTF(shared.num_scenes, head=config.variant, **_common(config, shared))


def _common(config, shared: Shared) -> dict:
    return {
        "width_divisor": config.encoder.width_divisor,
        "axis_name": shared.axis_name,
        "dtype": shared.dtype,
    }


def _at_least_one(field: str, value: int) -> None:
    """InputError unless value >= 1."""
    if value < 1:
        raise InputError(f"{field}={value} must be at least 1")


def _rate(field: str, value: float) -> None:
    if not 0 <= value < 1:
        raise InputError(f"{field}={value} must be at least 0 and below 1")


SYSTEMS = {
    "ergl": System(_ergl, events=True, pretrained=("encoder",)),
    "cnn": System(_cnn, pretrained=("encoder",)),
    "pann": System(_pann, events=True),
    "pann_scene": System(
        _pann_scene,
        pretrained=("encoder", "fc1", "fc_audioset"),
        variants=("embedding", "tags"),
    ),
    "dcase2018": _of_its_own(DCASE2018),
    "surrey": _of_its_own(SurreyCNN),
    "nnf": System(_nnf, variants=("mel", "filtered", "both", "ensemble")),
    "attention_crnn": _of_its_own(AttentionCRNN),
    "abcnn": _of_its_own(ABCNN),
    "mltf": System(_mltf, variants=("cnn", "svm")),
    "wavelet_crnn": _of_its_own(WaveletCRNN),
    "joint": _of_its_own(Joint, events=True),
    "mtl": _of_its_own(MTL, events=True),
    "conditional": _of_its_own(Conditional, events=True),
    "rgasc": _of_its_own(RGASC, events=True),
}
