"""Models and losses by the names of systems.py."""

from collections.abc import Callable
from functools import partial
from typing import Any

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
from ergl_jax.config import ModelConfig
from ergl_jax.models.decision_level import DecisionLevelPANN
from ergl_jax.models.dynamic import DynamicEventGraph, activity_loss, frames_loss
from ergl_jax.models.encoders import ENCODERS
from ergl_jax.models.ergl import ERGL
from ergl_jax.models.losses import Parts, binary_loss, losses
from ergl_jax.models.panns import PANN
from ergl_jax.systems import SYSTEMS

LOSSES: dict[str, Callable[..., Parts]] = {
    "ergl": losses,
    "bce": partial(losses, of_events=binary_loss),
    "scene": scene_only,
    "events": events_only,
    "activity": activity_loss,
    "frames": frames_loss,
    "joint": joint_loss,
    "rgasc_log": partial(rgasc_loss, activation=nn.log_softmax),
    "rgasc_prob": partial(rgasc_loss, activation=nn.softmax),
    "nll": nll_loss,
    "conditional": conditional_loss,
}
# These also take the `relations` of the training split.
RELATED = ("rgasc_log", "rgasc_prob", "conditional")
# Systems with layers of their own and no variants.
_OWN_LAYERS: dict[str, Callable[..., nn.Module]] = {
    "dcase2018": DCASE2018,
    "surrey": SurreyCNN,
    "attention_crnn": AttentionCRNN,
    "abcnn": ABCNN,
    "wavelet_crnn": WaveletCRNN,
    "joint": Joint,
    "mtl": MTL,
    "conditional": Conditional,
    "rgasc": RGASC,
}


def build(
    config: ModelConfig,
    *,
    num_scenes: int,
    num_events: int,
    axis_name: str | None = None,
    frame_seconds: float | None = None,
) -> nn.Module:
    """The model of a configuration.

    `axis_name` is the mapped axis over which BatchNorm shares its statistics in training;
    `frame_seconds` is the front end's hop, in which the dynamic event graph counts its lags; it is
    for that model alone, which raises ValueError without it.
    """
    mapped: dict[str, Any] = {"axis_name": axis_name, "dtype": jnp.dtype(config.compute_dtype)}
    encoder = ENCODERS[config.encoder.architecture](
        architecture=config.encoder.architecture,
        width_divisor=config.encoder.width_divisor,
        dropout=config.encoder.dropout,
        time_pools=config.encoder.time_pools or None,
        **mapped,
    )
    own = {"num_scenes": num_scenes, "width_divisor": config.encoder.width_divisor} | mapped
    if SYSTEMS[config.name].events:
        own["num_events"] = num_events
    match config.name, config.variant:
        case "ergl", _:
            return ERGL(
                num_scenes,
                num_events,
                encoder,
                channels=config.channels,
                tokens=config.tokens,
                mel=config.mel,
                gcn_layers=config.gcn.layers,
                gate=config.gcn.gate,
                dropout=config.dropout,
                **mapped,
            )
        case "ergl_dynamic", _:
            if frame_seconds is None:
                raise ValueError("ergl_dynamic needs frame_seconds, the front end's hop")
            return DynamicEventGraph(
                num_scenes,
                num_events,
                encoder,
                frame_seconds,
                pooling=config.pooling,
                edges=config.mel,
                dropout=config.dropout,
            )
        case "cnn", _:
            return CNN(num_scenes, encoder, config.dropout)
        case "pann", "":
            return PANN(num_events, encoder, config.dropout)
        case "pann", pooling:
            return DecisionLevelPANN(num_events, encoder, pooling, config.dropout)
        case "pann_scene", variant:
            return PANNScene(
                num_scenes,
                encoder,
                head_on=variant,
                frozen=config.frozen,
                dropout=config.dropout,
            )
        case "nnf", "ensemble":
            return NNFEnsemble(**own)
        case "nnf", variant:
            return NNFCNN(input=variant, **own)
        case "mltf", variant:
            return MLTF(head=variant, **own)
    return _OWN_LAYERS[config.name](**own)


def make_loss(
    name: str, *, scene: np.ndarray, events: np.ndarray, num_scenes: int, threshold: float
) -> Callable[..., Parts]:
    """The loss of this name: (output, *, scene (B, S), events (B, n)) -> parts.

    "frames" also takes activity (B, F, n).

    scene (N,) and events (N, n) are the labels of the training split, in which an event is present
    from `threshold` on; the losses that relate scenes to events need them.
    """
    if name not in RELATED:
        return LOSSES[name]
    return partial(LOSSES[name], relations=relations(scene, events, num_scenes, threshold))
