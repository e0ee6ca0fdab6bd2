"""Models by name: `build(config.model, ...)`.

Every system of the paper's tables is one of SYSTEMS; its file says where it comes from.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

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
from ergl_jax.models.ergl import ERGL
from ergl_jax.models.panns import PANN, Encoder

if TYPE_CHECKING:
    from ergl_jax.config import ModelConfig

# Trainers without gradient descent, and the model's name and variant that each is for.
CLOSED_FORM = {"svm": ("mltf", "svm"), "ensemble": ("nnf", "ensemble")}
_LOSSES = ("ergl", "bce", "scene")
_EVENT_LOSSES = (*_LOSSES, "events", "joint", "rgasc_log", "rgasc_prob")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Shared(NamedTuple):
    """What every system is built with, besides its own fields of the configuration."""

    num_scenes: int
    num_events: int
    axis_name: str | None
    dtype: jnp.dtype


class System(NamedTuple):
    """A model, and how it may be trained.

    Attributes:
      build: (config.model, Shared) -> its module.
      losses: what `train.loss` may be.
      events: whether it learns events besides the scene.
      pretrained: its submodules that `model.init_from` may give weights to.
      variants: what `model.variant` may be; none: the system has one form.
    """

    build: Callable
    losses: tuple[str, ...] = ()
    events: bool = False
    pretrained: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()


def build(
    config: "ModelConfig", *, num_scenes: int, num_events: int, axis_name: str | None = None
) -> nn.Module:
    """The model of a `config.model`.

    `axis_name` is the mapped axis over which BatchNorm shares its statistics in training.
    """
    shared = Shared(num_scenes, num_events, axis_name, DTYPES[config.compute_dtype])
    return system(config.name).build(config, shared)


def system(name: str) -> System:
    """The system of this name; ValueError lists the names."""
    if name not in SYSTEMS:
        raise ValueError(f"model.name={name!r} is not one of: {', '.join(SYSTEMS)}")
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
    return PANN(shared.num_events, _encoder(config, shared), config.dropout)


def _pann_scene(config, shared: Shared) -> PANNScene:
    return PANNScene(
        num_scenes=shared.num_scenes,
        encoder=_encoder(config, shared),
        head_on=config.variant,
        frozen=config.frozen,
        dropout=config.dropout,
    )


def _of_its_own(module: type, *losses: str, events: bool = False) -> System:
    """A system that has its own layers and sizes, all divided by `encoder.width_divisor`."""

    def build(config, shared: Shared) -> nn.Module:
        sizes = {"num_scenes": shared.num_scenes}
        if events:
            sizes["num_events"] = shared.num_events
        return module(**sizes, **_common(config, shared))

    return System(build, losses or (_EVENT_LOSSES if events else _LOSSES), events)


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


SYSTEMS = {
    "ergl": System(_ergl, _EVENT_LOSSES, events=True, pretrained=("encoder",)),
    "cnn": System(_cnn, _LOSSES, pretrained=("encoder",)),
    "pann": System(_pann, events=True),
    "pann_scene": System(
        _pann_scene,
        _LOSSES,
        pretrained=("encoder", "fc1", "fc_audioset"),
        variants=("embedding", "tags"),
    ),
    "dcase2018": _of_its_own(DCASE2018),
    "surrey": _of_its_own(SurreyCNN),
    "nnf": System(_nnf, _LOSSES, variants=("mel", "filtered", "both", "ensemble")),
    "attention_crnn": _of_its_own(AttentionCRNN),
    "abcnn": _of_its_own(ABCNN, *_LOSSES, "nll"),
    "mltf": System(_mltf, _LOSSES, variants=("cnn", "svm")),
    "wavelet_crnn": _of_its_own(WaveletCRNN),
    "joint": _of_its_own(Joint, events=True),
    "mtl": _of_its_own(MTL, events=True),
    "conditional": _of_its_own(Conditional, "conditional", events=True),
    "rgasc": _of_its_own(RGASC, events=True),
}
