"""Neighbouring mel bins side by side as channels: few channels then fill a TPU's 128 lanes.

A TPU stores the last axis in multiples of 128. 64 channels take twice the bytes, or XLA puts
another axis last and copies the array between layers. So on a TPU convolution and BatchNorm fold
their inputs and unfold their results, and XLA cancels an unfold followed by a fold.
Compiled for v5e, Cnn14's first blocks with their gradients (64 clips of 1001 frames, bfloat16):

| blocks | memory traffic, unfolded | folded | copies between layouts, unfolded | folded |
|---|---|---|---|---|
| one | 19.6 GB | 9.9 GB | 0.3 GB | 0.1 GB |
| two | 40.7 GB | 18.1 GB | 8.2 GB | 0.1 GB |

Shapes: B clips, F frames, M mel bins, C channels, k bins side by side.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax
from jax.experimental.layout import Layout, with_layout_constraint

LANES = 128
_layouts_are_free = ContextVar("_layouts_are_free", default=False)


@contextlib.contextmanager
def free_layouts() -> Iterator[None]:
    """Traces without layout constraints, which an exported program can't contain."""
    token = _layouts_are_free.set(True)
    try:
        yield
    finally:
        _layouts_are_free.reset(token)


def bins_to_fold(mels: int, channels: int) -> int:
    """k: the largest power of 2 that divides `mels`, with k * channels <= 128."""
    k = 1
    while 2 * k * channels <= LANES and mels % (2 * k) == 0:
        k *= 2
    return k


def fold(x: jax.Array, k: int) -> jax.Array:
    """(B, F, M, C) -> (B, F, M / k, k C)."""
    batch, frames, mels, channels = x.shape
    return x.reshape(batch, frames, mels // k, k * channels)


def unfold(x: jax.Array, k: int) -> jax.Array:
    """(B, F, M / k, k C) -> (B, F, M, C)."""
    batch, frames, mels, channels = x.shape
    return x.reshape(batch, frames, k * mels, channels // k)


def store_channels_last(x: jax.Array) -> jax.Array:
    """x (B, F, M, C) in memory order F, M, B, C, as TPU convolutions prefer.

    With fewer than 64 channels, and within `free_layouts`, XLA chooses the order.
    """
    if x.shape[-1] < LANES // 2 or _layouts_are_free.get():
        return x
    return with_layout_constraint(x, Layout(major_to_minor=(1, 2, 0, 3)))
