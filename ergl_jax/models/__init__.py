"""Models by name: `build(config.model, ...)`."""

import flax.linen as nn
import jax.numpy as jnp

from ergl_jax.errors import InputError
from ergl_jax.models.cnn import CNN
from ergl_jax.models.ergl import ERGL, Graph, Output, check_num_events
from ergl_jax.models.gated_gcn import to_graphs_tuple
from ergl_jax.models.panns import Encoder
from ergl_jax.models.tagger import PANN

__all__ = [
    "CNN",
    "ERGL",
    "MODELS",
    "PANN",
    "Encoder",
    "Graph",
    "Output",
    "build",
    "to_graphs_tuple",
]

MODELS = ("ergl", "cnn", "pann")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def build(config, *, num_scenes: int, num_events: int, axis_name: str | None = None) -> nn.Module:
    """The model that a `config.model` names; its fields are commented in configs/ergl.py.

    `axis_name` is the mapped axis over which BatchNorm shares its statistics in training.
    """
    if config.compute_dtype not in DTYPES:
        raise InputError(
            f"model.compute_dtype={config.compute_dtype!r} is not one of: {', '.join(DTYPES)}"
        )
    dtype = DTYPES[config.compute_dtype]
    _at_least_one("model.encoder.width_divisor", config.encoder.width_divisor)
    _rate("model.encoder.dropout", config.encoder.dropout)
    _rate("model.dropout", config.dropout)
    encoder = Encoder(
        architecture=config.encoder.architecture,
        width_divisor=config.encoder.width_divisor,
        dropout=config.encoder.dropout,
        axis_name=axis_name,
        dtype=dtype,
    )
    if config.name == "cnn":
        return CNN(num_scenes, encoder, config.dropout)
    if config.name == "pann":
        if num_scenes:
            raise InputError(
                "model.name='pann' tags events and knows no scenes: train 'ergl' or 'cnn', and "
                "let it start from a PANN by model.init_from"
            )
        return PANN(num_events, encoder, config.dropout)
    if config.name == "ergl":
        check_num_events(num_events)
        _at_least_one("model.channels", config.channels)
        _at_least_one("model.gcn.layers", config.gcn.layers)
        return ERGL(
            num_scenes=num_scenes,
            num_events=num_events,
            encoder=encoder,
            channels=config.channels,
            tokens=config.tokens,
            mel=config.mel,
            gcn_layers=config.gcn.layers,
            gate=config.gcn.gate,
            dropout=config.dropout,
            axis_name=axis_name,
            dtype=dtype,
        )
    raise InputError(f"model.name={config.name!r} is not one of: {', '.join(MODELS)}")


def _at_least_one(field: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{field}={value} must be at least 1")


def _rate(field: str, value: float) -> None:
    if not 0 <= value < 1:
        raise InputError(f"{field}={value} must be at least 0 and below 1")
