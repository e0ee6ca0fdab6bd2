"""ReLU(BatchNorm(x)), pooled or not, with a custom gradient that stores only x.

Used on every device; jax.jvp cannot differentiate it. Against Flax's BatchNorm and ReLU it takes

| where | this | Flax's |
|---|---|---|
| CPU, two cores: an eighth of Cnn10, forward and backward | 171 ms | 188 ms |

and, compiled for an H100, 4.2 GB less memory traffic in the paper's step.

On a TPU few channels are folded (lanes.py), and a pool's 2x2 windows get axes of their own: XLA
fuses these with the arithmetic around them, but writes the pool's gradient to memory if it is given
as an array of x's shape.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ergl_jax.kernels.devices import mean_over_devices
from ergl_jax.kernels.lanes import bins_to_fold, fold, store_channels_last, unfold
from ergl_jax.kernels.pool import average_pool_2x2_reference, average_pool_gradient

EPSILON = 1e-5


def batch_norm_relu_reference(
    x: jax.Array, scale: jax.Array, bias: jax.Array, axis_name: str | None, pool: bool = False
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`batch_norm_relu` with JAX's own gradient."""
    mean, var = statistics(_moments(x), axis_name)
    factor, offset = affine(mean, var, scale, bias)
    return _apply(x, factor, offset, pool), mean, var


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def batch_norm_relu(
    x: jax.Array, scale: jax.Array, bias: jax.Array, axis_name: str | None, pool: bool = False
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """ReLU(scale (x - mean) / sqrt(var + 1e-5) + bias), with the mean and variance of the batch.

    x (..., C), scale and bias (C,) -> y (..., C) of x's type, and mean and var, (C,) float32, over
    all axes but the last and over the devices of `axis_name`. Gradients flow through y alone. With
    `pool`, x is (B, F, M, C) and y its 2x2 average pool, (B, F // 2, M // 2, C).
    """
    return forward(x, scale, bias, axis_name, pool)[0]


def forward(x, scale, bias, axis_name, pool):
    moments = lax.platform_dependent(x, tpu=_moments_on_tpu, default=_moments)
    mean, var = statistics(moments, axis_name)
    y = normalise_relu(x, mean, var, scale, bias, pool)
    return (y, mean, var), (x, mean, var, scale, bias)


def backward(axis_name, pool, kept, cotangents):
    x, mean, var, scale, bias = kept
    factor, offset = affine(mean, var, scale, bias)
    dy = cotangents[0]
    d_bias, dy_x = lax.platform_dependent(
        x,
        dy,
        factor,
        offset,
        tpu=partial(_sums_on_tpu, pool=pool),
        default=partial(_sums, pool=pool),
    )
    count = x.size // x.shape[-1]
    d_scale, slope, constant = through_statistics(mean, var, scale, d_bias, dy_x, count, axis_name)
    dx = lax.platform_dependent(
        x,
        dy,
        factor,
        offset,
        slope,
        constant,
        tpu=partial(_input_gradient_on_tpu, pool=pool),
        default=partial(_input_gradient, pool=pool),
    )
    return dx, d_scale, d_bias


batch_norm_relu.defvjp(forward, backward)


def normalise_relu(
    x: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    pool: bool = False,
) -> jax.Array:
    """`batch_norm_relu` with a given mean and variance, (C,) as scale and bias."""
    factor, offset = affine(mean, var, scale, bias)
    return lax.platform_dependent(
        x,
        factor,
        offset,
        tpu=partial(_apply_on_tpu, pool=pool),
        default=partial(_apply, pool=pool),
    )


def affine(mean, var, scale, bias):
    """BatchNorm as a factor and an offset, (C,) each."""
    factor = scale * lax.rsqrt(var + EPSILON)
    return factor, bias - mean * factor


def through_statistics(mean, var, scale, d_bias, dy_x, count, axis_name):
    """d_scale, and the slope and constant in dx = factor dy + slope x - constant."""
    root = lax.rsqrt(var + EPSILON)
    factor = scale * root
    d_scale = root * (dy_x - mean * d_bias)
    # dx = factor (dy - mean(dy) - x^ mean(dy x^)) with x^ = (x - mean) root.
    mean_dy, mean_dyx = mean_over_devices((d_bias / count, d_scale / count), axis_name)
    slope = -factor * root * mean_dyx
    return d_scale, slope, factor * mean_dy + slope * mean


def _moments(x):
    wide, axes = x.astype(jnp.float32), tuple(range(x.ndim - 1))
    # Mean and mean of squares, so that one pass over x finds both. As with Flax's own default, the
    # variance loses digits where the mean is many standard deviations from zero.
    return wide.mean(axes), (wide * wide).mean(axes)


def statistics(moments, axis_name):
    mean, squares = mean_over_devices(moments, axis_name)
    return mean, jnp.maximum(squares - mean * mean, 0.0)


def _apply(x, factor, offset, pool):
    y = nn.relu(x.astype(jnp.float32) * factor + offset).astype(x.dtype)
    return average_pool_2x2_reference(y) if pool else y


def _relu_gradient(x, dy, factor, offset):
    """x, and dy where the ReLU's input is positive: float32."""
    wide = x.astype(jnp.float32)
    return wide, jnp.where(wide * factor + offset > 0, dy, jnp.zeros_like(dy)).astype(jnp.float32)


def _sums(x, dy, factor, offset, pool):
    """The sums of the ReLU's gradient, and of its product with x."""
    dy = average_pool_gradient(dy, *x.shape[1:3]) if pool else dy
    wide, dy = _relu_gradient(x, dy, factor, offset)
    axes = tuple(range(x.ndim - 1))
    return dy.sum(axes), (dy * wide).sum(axes)


def _input_gradient(x, dy, factor, offset, slope, constant, pool):
    dy = average_pool_gradient(dy, *x.shape[1:3]) if pool else dy
    wide, dy = _relu_gradient(x, dy, factor, offset)
    return (factor * dy + slope * wide - constant).astype(x.dtype)


def _moments_on_tpu(x):
    k = _bins(x)
    return jax.tree.map(lambda m: m.reshape(k, -1).mean(0), _moments(_folded(x, k)))


def _apply_on_tpu(x, factor, offset, pool):
    k = _bins(x, pool)
    factor, offset = jnp.tile(factor, k), jnp.tile(offset, k)
    if not pool:
        return _unfolded(_apply(_folded(x, k), factor, offset, pool=False), k)
    windows = _windows(x, k)
    y = nn.relu(windows.astype(jnp.float32) * factor + offset)
    y = y.sum((2, 4) if k == 1 else 2)
    if k == 2:
        y = jnp.add(*jnp.split(y, 2, axis=-1))
    return store_channels_last((0.25 * y).astype(x.dtype))


def _sums_on_tpu(x, dy, factor, offset, pool):
    k = _bins(x, pool)
    x, dy = (_windows(x, k), _over_windows(dy, k)) if pool else (_folded(x, k), _folded(dy, k))
    sums = _sums(x, dy, jnp.tile(factor, k), jnp.tile(offset, k), pool=False)
    return jax.tree.map(lambda s: s.reshape(k, -1).sum(0), sums)


def _input_gradient_on_tpu(x, dy, *vectors, pool):
    k = _bins(x, pool)
    factor, offset, slope, constant = (jnp.tile(v, k) for v in vectors)

    def gradient(x, dy):
        return _input_gradient(x, dy, factor, offset, slope, constant, pool=False)

    if not pool:
        return _unfolded(gradient(_folded(x, k), _folded(dy, k)), k)
    dx = gradient(_windows(x, k), _over_windows(dy, k))
    batch, rows, _, columns = dx.shape[:4]
    dx = dx.reshape(batch, 2 * rows, -1, x.shape[-1] * k)
    # The odd last row and column are in no window: their dy is zero.

    def rest(x):
        return (slope * x.astype(jnp.float32) - constant).astype(x.dtype)

    x = fold(x, k)
    dx = jnp.concatenate([dx, rest(x[:, : 2 * rows, dx.shape[2] :])], axis=2)
    dx = jnp.concatenate([dx, rest(x[:, 2 * rows :])], axis=1)
    return unfold(store_channels_last(dx), k)


def _bins(x, pool=False):
    """k of lanes.py: how many mel bins of x are folded; with a pool two or one."""
    k = bins_to_fold(*x.shape[2:]) if x.ndim == 4 else 1
    return k if k == 2 or not pool else 1


def _folded(x, k):
    return x if k == 1 else fold(x, k)


def _unfolded(x, k):
    return x if k == 1 else unfold(x, k)


def _windows(x, k):
    """x by the pool's windows, (B, F / 2, 2, M / 2, 2, C); if k = 2, the last two axes are one."""
    batch, frames, mels, channels = x.shape
    rows, columns = frames // 2, mels // 2
    x = fold(x, k)[:, : 2 * rows, : 2 * columns // k]
    inner = (channels * 2,) if k == 2 else (2, channels)
    # A barrier, or XLA converts x to float32 before this.
    return lax.optimization_barrier(x.reshape(batch, rows, 2, columns, *inner))


def _over_windows(dy, k):
    """The pool's gradient, (B, F / 2, M / 2, C), in the shape of `_windows`."""
    dy = store_channels_last(0.25 * dy)
    batch, rows, columns, channels = dy.shape
    if k == 1:
        return lax.broadcast_in_dim(dy, (batch, rows, 2, columns, 2, channels), (0, 1, 3, 5))
    dy = store_channels_last(jnp.concatenate([dy, dy], axis=-1))
    return lax.broadcast_in_dim(dy, (batch, rows, 2, columns, 2 * channels), (0, 1, 3, 4))
