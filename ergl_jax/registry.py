"""Models and their losses by name.

Every system of the paper's tables is one of SYSTEMS; its file names its source.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from ergl_jax.baselines.abcnn import ABCNN, nll_loss
from ergl_jax.baselines.attention_crnn import AttentionCRNN
from ergl_jax.baselines.cnn import CNN
from ergl_jax.baselines.conditional import Conditional, conditional_loss
from ergl_jax.baselines.dcase2018 import DCASE2018
from ergl_jax.baselines.joint import Joint, joint_loss
from ergl_jax.baselines.losses import events_only, relations, scene_only
from ergl_jax.baselines.mltf import MLTF
from ergl_jax.baselines.mtl import MTL
from ergl_jax.baselines.nnf import NNFCNN, NNFEnsemble
from ergl_jax.baselines.pann_scene import PANNScene
from ergl_jax.baselines.rgasc import RGASC, rgasc_loss
from ergl_jax.baselines.surrey import SurreyCNN
from ergl_jax.baselines.wavelet_crnn import WaveletCRNN
from ergl_jax.models.ergl import ERGL
from ergl_jax.models.losses import Parts, binary_loss, losses
from ergl_jax.models.panns import PANN, Encoder

if TYPE_CHECKING:
    from ergl_jax.config import ModelConfig

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

# What `train.loss` may be; each is called as (output, *, scene (B, S), events (B, n)).
Losses = dict[str, Callable[..., Parts]]
OF_SCENES: Losses = {
    "ergl": losses,
    "bce": partial(losses, of_events=binary_loss),
    "scene": scene_only,
}
OF_EVENTS: Losses = {
    **OF_SCENES,
    "events": events_only,
    "joint": joint_loss,
    "rgasc_log": partial(rgasc_loss, activation=nn.log_softmax),
    "rgasc_prob": partial(rgasc_loss, activation=nn.softmax),
}
# These also take the `relations` of the training split.
RELATED = ("rgasc_log", "rgasc_prob", "conditional")
# Trainers without gradient descent, and the model's name and variant that each is for.
CLOSED_FORM = {"svm": ("mltf", "svm"), "ensemble": ("nnf", "ensemble")}


class System(NamedTuple):
    """A model and how it may be trained.

    Attributes:
      build: (config.model, sizes, mapped) -> its module; `sizes` are num_scenes and, if it learns
        events, num_events, `mapped` are axis_name and dtype.
      losses: by the names that `train.loss` may be.
      events: whether it learns events beside the scene.
      pretrained: its submodules that `model.init_from` may give weights to.
      variants: what `model.variant` may be; none: the system has one form.
    """

    build: Callable[["ModelConfig", dict, dict], nn.Module]
    losses: Losses = OF_SCENES
    events: bool = False
    pretrained: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()


def build(
    config: "ModelConfig", *, num_scenes: int, num_events: int, axis_name: str | None = None
) -> nn.Module:
    """The model of a `config.model`.

    `axis_name` is the mapped axis over which BatchNorm shares its statistics in training.
    """
    found = system(config.name)
    sizes = {"num_scenes": num_scenes} | ({"num_events": num_events} if found.events else {})
    mapped = {"axis_name": axis_name, "dtype": DTYPES[config.compute_dtype]}
    return found.build(config, sizes, mapped)


def make_loss(
    model: str,
    name: str,
    *,
    scene: np.ndarray,
    events: np.ndarray,
    num_scenes: int,
    threshold: float,
) -> Callable[..., Parts]:
    """The loss `name` of the system `model`: (output, *, scene (B, S), events (B, n)) -> parts.

    scene (N,) and events (N, n) are the labels of the training split, in which an event is present
    from `threshold` on; the losses that relate scenes to events need them.
    """
    loss = system(model).losses[name]
    if name not in RELATED:
        return loss
    return partial(loss, relations=relations(scene, events, num_scenes, threshold))


def system(name: str) -> System:
    """The system of this name, or a ValueError that lists the names."""
    if name not in SYSTEMS:
        raise ValueError(f"model.name={name!r} is not one of: {', '.join(SYSTEMS)}")
    return SYSTEMS[name]


def _encoder(config: "ModelConfig", mapped: dict) -> Encoder:
    return Encoder(
        architecture=config.encoder.architecture,
        width_divisor=config.encoder.width_divisor,
        dropout=config.encoder.dropout,
        **mapped,
    )


def _ergl(config: "ModelConfig", sizes: dict, mapped: dict) -> ERGL:
    return ERGL(
        encoder=_encoder(config, mapped),
        channels=config.channels,
        tokens=config.tokens,
        mel=config.mel,
        gcn_layers=config.gcn.layers,
        gate=config.gcn.gate,
        dropout=config.dropout,
        **sizes,
        **mapped,
    )


def _cnn(config: "ModelConfig", sizes: dict, mapped: dict) -> CNN:
    return CNN(encoder=_encoder(config, mapped), dropout=config.dropout, **sizes)


def _pann(config: "ModelConfig", sizes: dict, mapped: dict) -> PANN:
    return PANN(sizes["num_events"], _encoder(config, mapped), config.dropout)


def _pann_scene(config: "ModelConfig", sizes: dict, mapped: dict) -> PANNScene:
    return PANNScene(
        encoder=_encoder(config, mapped),
        head_on=config.variant,
        frozen=config.frozen,
        dropout=config.dropout,
        **sizes,
    )


def _own_layers(module: type[nn.Module], variant: str = "") -> Callable:
    """A system without PANNs' encoder; `variant` is the module's field for `model.variant`."""

    def build(config: "ModelConfig", sizes: dict, mapped: dict) -> nn.Module:
        fields = {variant: config.variant} if variant else {}
        return module(width_divisor=config.encoder.width_divisor, **fields, **sizes, **mapped)

    return build


def _nnf(config: "ModelConfig", sizes: dict, mapped: dict) -> nn.Module:
    ensemble = config.variant == "ensemble"
    make = _own_layers(NNFEnsemble) if ensemble else _own_layers(NNFCNN, "input")
    return make(config, sizes, mapped)


SYSTEMS = {
    "ergl": System(_ergl, OF_EVENTS, events=True, pretrained=("encoder",)),
    "cnn": System(_cnn, pretrained=("encoder",)),
    "pann": System(_pann, {}, events=True),
    "pann_scene": System(
        _pann_scene,
        pretrained=("encoder", "fc1", "fc_audioset"),
        variants=("embedding", "tags"),
    ),
    "dcase2018": System(_own_layers(DCASE2018)),
    "surrey": System(_own_layers(SurreyCNN)),
    "nnf": System(_nnf, variants=("mel", "filtered", "both", "ensemble")),
    "attention_crnn": System(_own_layers(AttentionCRNN)),
    "abcnn": System(_own_layers(ABCNN), OF_SCENES | {"nll": nll_loss}),
    "mltf": System(_own_layers(MLTF, "head"), variants=("cnn", "svm")),
    "wavelet_crnn": System(_own_layers(WaveletCRNN)),
    "joint": System(_own_layers(Joint), OF_EVENTS, events=True),
    "mtl": System(_own_layers(MTL), OF_EVENTS, events=True),
    "conditional": System(_own_layers(Conditional), {"conditional": conditional_loss}, events=True),
    "rgasc": System(_own_layers(RGASC), OF_EVENTS, events=True),
}
