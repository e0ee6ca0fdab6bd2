"""ReLU(BatchNorm(x)) in one pass over x, with a gradient of its own that keeps nothing but x.

Used on every device; jax.jvp cannot differentiate it. Against Flax's BatchNorm and ReLU it takes

| where | this | Flax's |
|---|---|---|
| CPU, two cores: an eighth of Cnn10, forward and backward | 171 ms | 188 ms |
| H100, compiled: memory traffic of the paper's step | 22.9 GB | 27.1 GB |
| TPU v5e, compiled: the same | 65.1 GB | 62.7 GB |
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.kernels.devices import mean_over_devices

EPSILON = 1e-5


def batch_norm_relu_reference(
    x: jax.Array, scale: jax.Array, bias: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`batch_norm_relu` with JAX's own gradient."""
    wide, axes = x.astype(jnp.float32), tuple(range(x.ndim - 1))
    # Mean and mean of squares, so that one pass over x finds both. As with Flax's own default, the
    # variance loses digits where the mean is many standard deviations from zero.
    mean, squares = mean_over_devices((wide.mean(axes), (wide * wide).mean(axes)), axis_name)
    var = jnp.maximum(squares - mean * mean, 0.0)
    return normalise_relu(x, mean, var, scale, bias), mean, var


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_norm_relu(
    x: jax.Array, scale: jax.Array, bias: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """ReLU(scale (x - mean) / sqrt(var + 1e-5) + bias), with the mean and variance of the batch.

    x (..., C), scale and bias (C,) -> y (..., C) of x's type, and mean and var, (C,) float32, over
    all axes but the last and over the devices of `axis_name`. Gradients flow through y alone.
    """
    return batch_norm_relu_reference(x, scale, bias, axis_name)


def _forward(x, scale, bias, axis_name):
    y, mean, var = batch_norm_relu_reference(x, scale, bias, axis_name)
    return (y, mean, var), (x, mean, var, scale, bias)


def _backward(axis_name, kept, cotangents):
    x, mean, var, scale, bias = kept
    factor, offset = _affine(mean, var, scale, bias)
    wide, axes, dy = x.astype(jnp.float32), tuple(range(x.ndim - 1)), cotangents[0]
    dy = jnp.where(wide * factor + offset > 0, dy.astype(jnp.float32), 0.0)  # ReLU's gradient
    count = x.size // x.shape[-1]
    d_bias = dy.sum(axes)
    root = jax.lax.rsqrt(var + EPSILON)
    d_scale = root * ((dy * wide).sum(axes) - mean * d_bias)
    # dx = factor (dy - mean(dy) - x^ mean(dy x^)) with x^ = (x - mean) root.
    mean_dy, mean_dyx = mean_over_devices((d_bias / count, d_scale / count), axis_name)
    slope = -factor * root * mean_dyx
    dx = factor * dy + slope * wide - (factor * mean_dy + slope * mean)
    return dx.astype(x.dtype), d_scale, d_bias


batch_norm_relu.defvjp(_forward, _backward)


def normalise_relu(
    x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array
) -> jax.Array:
    """`batch_norm_relu` with a given mean and variance: x (..., C), all others (C,)."""
    factor, offset = _affine(mean, var, scale, bias)
    return nn.relu(x.astype(jnp.float32) * factor + offset).astype(x.dtype)


def _affine(mean, var, scale, bias):
    """BatchNorm as a factor and an offset, (C,) each."""
    factor = scale * jax.lax.rsqrt(var + EPSILON)
    return factor, bias - mean * factor
