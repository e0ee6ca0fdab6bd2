"""ReLU(BatchNorm(convolution)) of one input channel, the convolution's own output never stored.

Channel d of that output is y_d = w_d · p, with p the K² values of x under the kernel. So its mean
is w_d · E[p] and its mean square w_dᵀ E[p pᵀ] w_d, where both expectations depend on x alone: 64
times less data in Cnn14. BatchNorm then is a factor on the kernel and an offset.

On a GPU. Compiled for an H100, the paper's step takes 18.3 instead of 20.7 GB of memory traffic and
3.7 instead of 4.2 GB of temporaries. CPU and TPU store y (batch_norm.py): a TPU normalises it
within the next convolution anyway.

Shapes: B clips, F frames, M mel bins, D channels out, K the side of the kernel.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ergl_jax.kernels import batch_norm
from ergl_jax.kernels.convolution import convolve


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def convolve_batch_norm_relu(
    x: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`batch_norm_relu` of x (B, F, M, 1) convolved with `kernel` (K, K, 1, D), float32.

    Computed in x's type. jax.jvp cannot differentiate it.
    """
    return _forward(x, kernel, scale, bias, axis_name)[0]


def _forward(x, kernel, scale, bias, axis_name):
    outputs, stored = lax.platform_dependent(
        x,
        kernel,
        scale,
        bias,
        cpu=partial(_forward_by_output, axis_name=axis_name),
        tpu=partial(_forward_by_output, axis_name=axis_name),
        default=partial(_forward_by_input, axis_name=axis_name),
    )
    return outputs, (x, kernel, scale, bias, *outputs[1:], stored)


def _backward(axis_name, kept, cotangents):
    return lax.platform_dependent(
        *kept,
        cotangents[0],
        cpu=partial(_backward_by_output, axis_name=axis_name),
        tpu=partial(_backward_by_output, axis_name=axis_name),
        default=partial(_backward_by_input, axis_name=axis_name),
    )


convolve_batch_norm_relu.defvjp(_forward, _backward)


def _convolve(x, kernel):
    return convolve(x, kernel.astype(x.dtype))


def _forward_by_output(x, kernel, scale, bias, axis_name):
    y = _convolve(x, kernel)
    return batch_norm.forward(y, scale, bias, axis_name, pool=False)[0], y


def _backward_by_output(x, kernel, scale, bias, mean, var, y, dz, axis_name):
    dy, d_scale, d_bias = batch_norm.backward(axis_name, False, (y, mean, var, scale, bias), (dz,))
    return *jax.vjp(_convolve, x, kernel)[1](dy), d_scale, d_bias


def _forward_by_input(x, kernel, scale, bias, axis_name):
    mean, var = batch_norm.statistics(_moments(x, kernel), axis_name)
    factor, offset = batch_norm.affine(mean, var, scale, bias)
    # The offset in x's type: XLA then has cuDNN add it, and apply the ReLU, in the convolution.
    z = nn.relu(_convolve(x, factor * kernel) + offset.astype(x.dtype))
    return (z, mean, var), z


def _backward_by_input(x, kernel, scale, bias, mean, var, z, dz, axis_name):
    factor, _ = batch_norm.affine(mean, var, scale, bias)
    # Not z > 0: XLA would make it y > 0, and store y as well.
    dz = jnp.where(z != 0, dz, 0)
    d_bias = dz.sum((0, 1, 2), dtype=jnp.float32)
    dx, d_scaled = jax.vjp(_convolve, x, factor * kernel)[1](dz)
    dz_y = (d_scaled * kernel).sum((0, 1, 2))  # the sum of dz y over all places
    count = dz.size // dz.shape[-1]
    d_scale, slope, constant = batch_norm.through_statistics(
        mean, var, scale, d_bias, dz_y, count, axis_name
    )
    # dy = factor dz + slope y - constant; the last two terms are gradients of the moments of y.
    moments_gradient = jax.vjp(_moments, x, kernel)[1]
    dx_moments, d_kernel = moments_gradient((-count * constant, 0.5 * count * slope))
    return dx + dx_moments, factor * d_scaled + d_kernel, d_scale, d_bias


def _moments(x, kernel):
    """The mean and the mean square of each channel of x convolved with the kernel: (D,) each."""
    highest = lax.Precision.HIGHEST
    mean, square = _patch_moments(x[..., 0], kernel.shape[0])
    weights = kernel.reshape(-1, kernel.shape[-1])
    weighted = jnp.matmul(square, weights, precision=highest)
    return jnp.matmul(mean, weights, precision=highest), (weights * weighted).sum(0)


def _patch_moments(x, side):
    """E[p], (K²,), and E[p pᵀ], (K², K²), over all places of x (B, F, M), zeros around it."""
    batch, frames, mels = x.shape
    around = (side // 2, side // 2)
    x = jnp.pad(x, ((0, 0), around, (0, 0)))
    # Each frame with its neighbours: the products of all pairs of mel bins are one product.
    rows = jnp.concatenate([x[:, i : i + frames] for i in range(side)], axis=-1)
    precision = lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    products = jnp.einsum(
        "bfm,bfn->mn", rows, rows, precision=precision, preferred_element_type=jnp.float32
    )
    products = products.reshape(side, mels, side, mels)
    products = jnp.pad(products, ((0, 0), around, (0, 0), around))
    sums = rows.sum((0, 1), dtype=jnp.float32).reshape(side, mels)
    sums = jnp.pad(sums, ((0, 0), around))
    count = batch * frames * mels
    bins = [slice(j, j + mels) for j in range(side)]
    mean = jnp.stack([sums[:, i].sum(1) for i in bins], axis=1) / count
    square = [[jnp.trace(products[:, i, :, j], axis1=1, axis2=3) for j in bins] for i in bins]
    square = jnp.array(square).transpose(2, 0, 3, 1) / count  # (K, K, K, K)
    return mean.reshape(-1), square.reshape(side**2, side**2)
