"""Initialisers, and the layers that the encoders are made of."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.kernels.batch_norm import affine, affine_relu, batch_norm_relu
from ergl_jax.kernels.convolution import convolve

# Uniform in +-sqrt(6 / fan_in): for convolutions and dense layers alike.
he_uniform = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
# A tenth of that for the scene layers, so that training begins near equal probabilities. The
# features it reads are all positive and alike from clip to clip: at full size their common part
# drowns the rest, and ERGL learns much slower (benchmarks/RESULTS.md, "Scene layer").
small_uniform = nn.initializers.variance_scaling(0.02, "fan_in", "uniform")

BATCH_NORM_MOMENTUM = 0.9  # in Flax's sense: 0.1 in PyTorch's


class Conv(nn.Module):
    """A convolution with a square kernel, of odd side, without bias; computed in `dtype`."""

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

    Parameters and statistics are float32 whatever `dtype` is computed in. Like Flax, this keeps the
    biased running variance where PyTorch keeps the unbiased one: with N values a channel they
    differ by the factor N / (N - 1).
    """

    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(..., C) -> (..., C) of `dtype`; `train` uses and records the batch's statistics."""
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        var = self.variable("batch_stats", "var", jnp.ones, channels)
        x = x.astype(self.dtype)
        if not train:
            factor, offset = affine(mean.value, var.value, scale, bias)
            return affine_relu(x, factor, offset)
        y, batch_mean, batch_var = batch_norm_relu(x, scale, bias, self.axis_name)
        if not self.is_initializing():
            keep = BATCH_NORM_MOMENTUM
            mean.value = keep * mean.value + (1 - keep) * batch_mean
            var.value = keep * var.value + (1 - keep) * batch_var
        return y
