"""Initialisers, BatchNorm with ReLU, and the 2x2 pool that the encoders are made of.

Both layers carry gradients of their own: the same numbers as JAX would derive, a little faster on
narrow encoders (benchmarks/RESULTS.md, "Layers"). They can't be differentiated forward (jax.jvp).
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

# Uniform in +-sqrt(6 / fan_in): for convolutions and dense layers alike.
he_uniform = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
# A tenth of that for the scene layers, so that training begins near equal probabilities. The
# features it reads are all positive and alike from clip to clip: at full size their common part
# drowns the rest, and ERGL learns much slower (benchmarks/RESULTS.md, "Scene layer").
small_uniform = nn.initializers.variance_scaling(0.02, "fan_in", "uniform")

BATCH_NORM_MOMENTUM = 0.9  # in Flax's sense: 0.1 in PyTorch's
BATCH_NORM_EPSILON = 1e-5


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
            factor, offset = _line(mean.value, var.value, scale, bias)
            return _line_relu(x, factor, offset)
        y, batch_mean, batch_var = batch_norm_relu(x, scale, bias, self.axis_name)
        if not self.is_initializing():
            keep = BATCH_NORM_MOMENTUM
            mean.value = keep * mean.value + (1 - keep) * batch_mean
            var.value = keep * var.value + (1 - keep) * batch_var
        return y


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_norm_relu(
    x: jax.Array, scale: jax.Array, bias: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """ReLU(scale (x - mean) / sqrt(var + 1e-5) + bias), mean and var of the batch.

    x (..., C), scale and bias (C,) -> y (..., C) of x's type, and mean and var, (C,) float32, over
    all axes but the last and over the devices of `axis_name`. No gradient flows back from mean and
    var as results.
    """
    return _forward(x, scale, bias, axis_name)[0]


def _forward(x, scale, bias, axis_name):
    wide, axes = x.astype(jnp.float32), tuple(range(x.ndim - 1))
    # Mean and mean of squares, so that one pass over x finds both. As with Flax's own default, the
    # variance loses digits where the mean is many standard deviations from zero.
    mean, squares = over_devices((wide.mean(axes), (wide * wide).mean(axes)), axis_name)
    var = jnp.maximum(squares - mean * mean, 0.0)
    factor, offset = _line(mean, var, scale, bias)
    return (_line_relu(x, factor, offset), mean, var), (x, mean, var, scale, bias)


def _backward(axis_name, kept, cotangents):
    x, mean, var, scale, bias = kept
    factor, offset = _line(mean, var, scale, bias)
    wide, axes, dy = x.astype(jnp.float32), tuple(range(x.ndim - 1)), cotangents[0]
    # Where ReLU let pass is found again rather than kept.
    dy = jnp.where(wide * factor + offset > 0, dy.astype(jnp.float32), 0.0)
    count = x.size // x.shape[-1]
    d_bias = dy.sum(axes)
    root = jax.lax.rsqrt(var + BATCH_NORM_EPSILON)
    d_scale = root * ((dy * wide).sum(axes) - mean * d_bias)
    # dx = factor (dy - mean(dy) - x^ mean(dy x^)) with x^ = (x - mean) root.
    mean_dy, mean_dyx = over_devices((d_bias / count, d_scale / count), axis_name)
    slope = -factor * root * mean_dyx
    dx = factor * dy + slope * wide - (factor * mean_dy + slope * mean)
    return dx.astype(x.dtype), d_scale, d_bias


batch_norm_relu.defvjp(_forward, _backward)


def over_devices(values, axis_name: str | None):
    """Means of a tree over the devices of `axis_name`."""
    # XLA copies what it averages, over one device too.
    alone = axis_name is None or jax.lax.axis_size(axis_name) == 1
    return values if alone else jax.lax.pmean(values, axis_name)


def _line(mean, var, scale, bias):
    """BatchNorm as a factor and an offset, (C,) each."""
    factor = scale * jax.lax.rsqrt(var + BATCH_NORM_EPSILON)
    return factor, bias - mean * factor


def _line_relu(x: jax.Array, factor: jax.Array, offset: jax.Array) -> jax.Array:
    return nn.relu(x.astype(jnp.float32) * factor + offset).astype(x.dtype)


@jax.custom_vjp
def average_pool_2x2(x: jax.Array) -> jax.Array:
    """(B, H, W, C) -> (B, H // 2, W // 2, C); an odd last row or column is dropped."""
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    rows = x[:, 0:height:2] + x[:, 1:height:2]
    return 0.25 * (rows[:, :, 0:width:2] + rows[:, :, 1:width:2])


def _pool_forward(x):
    # A result must be of arrays: an empty one carries the shape.
    return average_pool_2x2(x), jnp.zeros((0, *x.shape[1:3]))


def _pool_backward(shape, dy):
    height, width = shape.shape[1:]
    batch, rows, columns, channels = dy.shape
    dx = jnp.broadcast_to(
        (0.25 * dy)[:, :, None, :, None], (batch, rows, 2, columns, 2, channels)
    ).reshape(batch, 2 * rows, 2 * columns, channels)
    return (jnp.pad(dx, ((0, 0), (0, height - 2 * rows), (0, width - 2 * columns), (0, 0))),)


average_pool_2x2.defvjp(_pool_forward, _pool_backward)
