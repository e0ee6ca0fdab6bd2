"""Initialisers, and the layers that encoders are made of.

How a layer is computed on which device is the business of ergl_jax/kernels.

Shapes: B clips, F frames, M mel bins, C channels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.kernels.batch_norm import batch_norm_relu, normalise_relu
from ergl_jax.kernels.convolution import convolve
from ergl_jax.kernels.first_layer import convolve_batch_norm_relu

# Uniform in ±sqrt(6 / fan_in), for convolutions and dense layers.
he_uniform = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
# A tenth of that, for scene layers, so that training begins near equal probabilities: their input
# is positive and alike from clip to clip, and at full size this common part drowns the rest
# (benchmarks/RESULTS.md, "Scene layer").
small_uniform = nn.initializers.variance_scaling(0.02, "fan_in", "uniform")

BATCH_NORM_MOMENTUM = 0.9  # in Flax's sense; 0.1 in PyTorch's


def linear(x: jax.Array, name: str, dtype: jnp.dtype) -> jax.Array:
    """x W, with W square; for use within a module's compact method."""
    dense = nn.Dense(x.shape[-1], use_bias=False, kernel_init=he_uniform, dtype=dtype, name=name)
    return dense(x)


class Conv(nn.Module):
    """A convolution without bias, its kernel square and of odd side; computed in `dtype`."""

    channels: int
    side: int = 3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, F, M, C) -> (B, F, M, channels) of `dtype`."""
        if self.side % 2 == 0:
            raise ValueError(f"side={self.side}: an even kernel has no middle; use an odd one")
        shape = (self.side, self.side, x.shape[-1], self.channels)
        kernel = self.param("kernel", he_uniform, shape)
        return convolve(x.astype(self.dtype), kernel.astype(self.dtype))


class BatchNormReLU(nn.Module):
    """ReLU(BatchNorm(x)) over the last axis, its statistics shared by all devices of `axis_name`.

    With `pool`, a 2x2 average pool follows.

    Parameters and statistics are float32, whatever `dtype` is computed in. The running variance is
    the biased one, as in Flax; PyTorch's is larger by N / (N - 1), with N values a channel.
    """

    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32
    pool: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool, convolved: tuple[jax.Array, jax.Array] | None = None
    ) -> jax.Array:
        """(..., C) -> (..., C) of `dtype`; `train` uses and records the batch's statistics.

        `convolved`: input and kernel of the convolution that made x, or None; only for an input of
        one channel. On a GPU, kernels/first_layer.py needs less memory with these than with x.
        """
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        var = self.variable("batch_stats", "var", jnp.ones, channels)
        x = x.astype(self.dtype)
        if not train:
            return normalise_relu(x, mean.value, var.value, scale, bias, self.pool)
        if convolved is None or self.pool:
            y, batch_mean, batch_var = batch_norm_relu(x, scale, bias, self.axis_name, self.pool)
        else:
            source, kernel = convolved
            y, batch_mean, batch_var = convolve_batch_norm_relu(
                source.astype(self.dtype), kernel, scale, bias, self.axis_name
            )
        if not self.is_initializing():
            keep = BATCH_NORM_MOMENTUM
            mean.value = keep * mean.value + (1 - keep) * batch_mean
            var.value = keep * var.value + (1 - keep) * batch_var
        return y


class ConvBlock(nn.Module):
    """[convolution, BatchNorm, ReLU] `convolutions` times, then a 2x2 average pool or none."""

    channels: int
    kernel: int = 3
    convolutions: int = 2
    pool: bool = True
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, F, M, C) -> (B, F/2, M/2, channels), or (B, F, M, channels) without the pool."""
        for convolution in range(1, self.convolutions + 1):
            conv = Conv(self.channels, self.kernel, self.dtype)
            pool = self.pool and convolution == self.convolutions
            norm = BatchNormReLU(self.axis_name, self.dtype, pool)
            y = conv(x)
            convolved = (x, conv.variables["params"]["kernel"]) if x.shape[-1] == 1 else None
            x = norm(y, train=train, convolved=convolved)
        return x


def clip_embedding(h: jax.Array, *, dropout: float, train: bool, name: str) -> jax.Array:
    """(B, T, D) -> (B, D): max plus mean over time, then PANNs' dense layer, called `name`.

    For use within a module's compact method.
    """
    # Not h.max(axis=1): its gradient compares h with the maximum, and is NaN where a compiled
    # program has rounded the two differently.
    z = nn.max_pool(h, h.shape[1:2])[:, 0] + h.mean(axis=1)
    z = nn.Dropout(dropout, deterministic=not train)(z)
    return nn.relu(nn.Dense(z.shape[-1], kernel_init=he_uniform, name=name)(z))


def pool_over_three(h: jax.Array) -> jax.Array:
    """(B, T, D) -> (B, T, D): maximum plus mean over each frame and its two neighbours.

    At both ends the mean counts a frame of zeros.
    """
    pool: dict = {"window_shape": (3,), "strides": (1,), "padding": "SAME"}
    return nn.max_pool(h, **pool) + nn.avg_pool(h, **pool)
