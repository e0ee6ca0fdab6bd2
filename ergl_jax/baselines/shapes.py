"""What the compared systems ask of shapes: narrower layers, pools that fit, inputs long enough."""

import flax.linen as nn
import jax

from ergl_jax.errors import InputError


def narrowed(channels: int, divisor: int) -> int:
    """channels / divisor, or an InputError where that is no whole number."""
    if channels % divisor:
        raise InputError(
            f"model.encoder.width_divisor={divisor} does not divide the {channels} channels of a "
            "layer: set one that does, such as 1"
        )
    return channels // divisor


def check_input(system: str, log_mel: jax.Array, *, frames: int, mels: int) -> None:
    """InputError where log_mel (B, F, M) has less than `frames` or `mels`, which `system` needs."""
    if log_mel.shape[1] < frames or log_mel.shape[2] < mels:
        raise InputError(
            f"{system} pools time and frequency and needs at least {frames} frames and {mels} mel "
            f"bins, not {log_mel.shape[1:]}: use longer clips or more bins"
        )


def max_pool(x: jax.Array, time: int, frequency: int) -> jax.Array:
    """(B, F, M, C) -> (B, F // time, M // frequency, C), remainders dropped.

    Where fewer than `time` frames are left, as in short clips, all of them are one pool.
    """
    window = (min(time, x.shape[1]), frequency)
    return nn.max_pool(x, window, strides=window)
