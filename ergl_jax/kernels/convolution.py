"""The encoders' convolution, in the form that is fast on the device it runs on.

GPU: XLA's convolution, the kernel's gradient in the parameter's layout. TPU: XLA's, on folded
channels (lanes.py). CPU, where XLA turns a convolution into a matrix product that is slow for few
output channels and in many gradients: by the first row that matches.

| | where | how | without it |
|---|---|---|---|
| all | 3x3, float32, 128 channels or more in and out, F M >= 128 | winograd.py | paper 1.19 |
| forward | fewer than 32 channels out | several mel bins at once | quickstart 1.13 |
| input's gradient | at least B F M channels out | one product, then sums | paper 1.12 |
| input's gradient | one channel in, 32 or more out | one product, then sums | paper 1.07 (*) |
| input's gradient | fewer than 32 channels in | several mel bins at once | quickstart 1.08 |
| kernel's gradient | at least B F M channels out | one product of patches | paper 1.07 (*) |
| kernel's gradient | up to 3 clips | clips cut in time | paper 1.05 to 1.11 |
| kernel's gradient | fewer than 32 channels out | several mel bins at once | quickstart 0.99 |

The last column is the CPU time of a step without that row over the time with it, (*) without both
such rows: medians on two AMD cores, the quickstart at 16 clips, the paper's model at two.
docs/performance.md has single layers. jax.jvp cannot differentiate `convolve`.

Shapes: B clips, F frames, M mel bins, C channels in, D channels out, K the side of the kernel.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

from ergl_jax.kernels import winograd
from ergl_jax.kernels.lanes import bins_to_fold, fold, store_channels_last, unfold

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_WIDE = 32  # channels out from which XLA's product is fast
_FEW_CLIPS = 4
_WINOGRAD_CHANNELS, _WINOGRAD_PIXELS = 128, 128  # from which its transformations pay


def convolve_reference(x: jax.Array, kernel: jax.Array, padding="SAME") -> jax.Array:
    """`convolve` by XLA, with JAX's own gradients."""
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=_LAYOUT)


@jax.custom_vjp
def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x (B, F, M, C), kernel (K, K, C, D), K odd -> (B, F, M, D): stride 1, zeros around x."""
    return lax.platform_dependent(
        x, kernel, cpu=_on_cpu, tpu=_convolve_folded, default=convolve_reference
    )


def _forward(x, kernel):
    return convolve(x, kernel), (x, kernel)


def _backward(kept, dy):
    return lax.platform_dependent(
        *kept, dy, cpu=_gradients_on_cpu, tpu=_gradients_folded, default=_gradients
    )


convolve.defvjp(_forward, _backward)


def _gradients(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple:
    dx, d_kernel = jax.vjp(convolve_reference, x, kernel)[1](dy)
    # In the parameter's layout: in cuDNN's, XLA would copy the whole optimiser state there and
    # back: 24.7 instead of 20.7 GB of memory traffic in the paper's step on an H100, compiled.
    return dx, with_layout_constraint(d_kernel, Layout(major_to_minor=(0, 1, 2, 3)))


def _gradients_folded(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple:
    return jax.vjp(_convolve_folded, x, kernel)[1](dy)


def _convolve_folded(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution of folded channels (lanes.py), with the kernel shifted for each bin."""
    side, _, channels, outputs = kernel.shape
    k = bins_to_fold(x.shape[2], max(channels, outputs))
    if k > 1:
        reach = side // 2
        around = -(-reach // k) * k  # bins of the neighbouring folds, on each side
        copies = [
            jnp.pad(kernel, ((0, 0), (before, 2 * around + k - side - before), (0, 0), (0, 0)))
            for before in range(around - reach, around - reach + k)
        ]
        kernel = jnp.stack(copies, axis=3)  # (K, 2 around + k, C, k, D)
        kernel = kernel.reshape(side, 2 * around // k + 1, k * channels, k * outputs)
    y = convolve_reference(store_channels_last(fold(x, k)), kernel)
    return unfold(store_channels_last(y), k)


def _on_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return (winograd.convolve if _use_winograd(x, kernel) else _convolve_packed_mels)(x, kernel)


def _use_winograd(x: jax.Array, kernel: jax.Array) -> bool:
    # Not by the number of clips: a clip's result must not depend on the batch size, and an exported
    # program takes any number.
    _, frames, mels, inputs = x.shape
    fits = kernel.shape[0] == 3 and x.dtype == jnp.float32
    wide = min(inputs, kernel.shape[-1]) >= _WINOGRAD_CHANNELS
    return fits and wide and frames * mels >= _WINOGRAD_PIXELS


def _gradients_on_cpu(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple:
    # So that x and dy are computed before XLA transposes them, not meanwhile (`cpu.use_barriers`).
    x, dy = lax.optimization_barrier((x, dy))
    if _use_winograd(x, kernel):
        return jax.vjp(winograd.convolve, x, kernel)[1](dy)
    batch, frames, mels, channels = x.shape
    outputs = kernel.shape[-1]
    few_pixels = batch * frames * mels <= outputs
    if few_pixels or (channels == 1 and outputs >= _WIDE):
        dx = _input_gradient_col2im(dy, kernel)
    else:
        dx = _convolve_packed_mels(dy, jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    if few_pixels:
        return dx, _kernel_gradient_im2col(x, dy, kernel.shape[0])
    if batch < _FEW_CLIPS:
        return dx, _kernel_gradient_in_segments(x, kernel, dy)
    # In bfloat16 the gradients of the kernel's copies would be added in bfloat16.
    packed = outputs < _WIDE and x.dtype == jnp.float32
    return dx, _kernel_gradient(
        _convolve_packed_mels if packed else convolve_reference, x, kernel, dy
    )


def _kernel_gradient(
    function: Callable, x: jax.Array, kernel: jax.Array, dy: jax.Array
) -> jax.Array:
    return jax.vjp(lambda kernel: function(x, kernel), kernel)[1](dy)[0]


def _convolve_packed_mels(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Several neighbouring mel bins at once, so that few output channels become many.

    The kernel is laid out once for each of `bins` neighbours, zeros elsewhere, and slides by as
    many: (K, K + bins - 1, C, bins * D). More multiplications, most of them by zero, yet faster.
    """
    batch, frames, mels, _ = x.shape
    side, outputs = kernel.shape[0], kernel.shape[-1]
    bins = next((b for b in (8, 4, 2) if b * outputs <= _WIDE and mels % b == 0), 1)
    copies = [
        jnp.pad(kernel, ((0, 0), (place, bins - 1 - place), (0, 0), (0, 0)))
        for place in range(bins)
    ]
    y = lax.conv_general_dilated(
        x,
        jnp.concatenate(copies, axis=-1),
        (1, bins),
        ((side // 2, side // 2),) * 2,
        dimension_numbers=_LAYOUT,
    )
    return y.reshape(batch, frames, mels, outputs)


def _kernel_gradient_in_segments(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> jax.Array:
    """The kernel's gradient from clips cut in time, into 2 * _FEW_CLIPS segments or a few more.

    XLA's innermost sum is over the clips, and over so few it is slow.
    """
    batch, frames = x.shape[:2]
    reach = kernel.shape[0] // 2
    segments = min(frames, -(-2 * _FEW_CLIPS // batch))
    length = -(-frames // segments)
    missing = segments * length - frames
    x = jnp.pad(x, ((0, 0), (reach, reach + missing), (0, 0), (0, 0)))
    # Each segment with the neighbouring frames that its outputs see.
    x = jnp.stack([x[:, i * length :][:, : length + 2 * reach] for i in range(segments)], axis=1)
    dy = jnp.pad(dy, ((0, 0), (0, missing), (0, 0), (0, 0)))
    x, dy = x.reshape(-1, *x.shape[2:]), dy.reshape(batch * segments, length, *dy.shape[2:])
    padding = ((0, 0), (reach, reach))
    return _kernel_gradient(lambda x, k: convolve_reference(x, k, padding), x, kernel, dy)


def _input_gradient_col2im(dy: jax.Array, kernel: jax.Array) -> jax.Array:
    """The input's gradient as one product with the kernel, which XLA would transpose, then sums."""
    batch, frames, mels, outputs = dy.shape
    side, _, inputs, _ = kernel.shape
    sent = jnp.einsum(
        "bfmd,ed->bfme", dy, kernel.reshape(-1, outputs), preferred_element_type=jnp.float32
    )
    sent = sent.reshape(batch, frames, mels, side, side, inputs)
    reach = side // 2
    sent = jnp.pad(sent, ((0, 0), (reach, reach), (reach, reach), (0, 0), (0, 0), (0, 0)))
    offsets = [(i, side - 1 - i) for i in range(side)]
    received = [sent[:, f : f + frames, m : m + mels, i, j] for i, f in offsets for j, m in offsets]
    return sum(received[1:], received[0]).astype(dy.dtype)


def _kernel_gradient_im2col(x: jax.Array, dy: jax.Array, side: int) -> jax.Array:
    """The kernel's gradient as one product with the patches of x, without a transposition."""
    _, frames, mels, channels = x.shape
    reach = side // 2
    x = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    offsets = [(i, j) for i in range(side) for j in range(side)]
    patches = jnp.concatenate([x[:, i : i + frames, j : j + mels] for i, j in offsets], axis=-1)
    products = jnp.einsum("bfmc,bfmd->cd", patches, dy, preferred_element_type=jnp.float32)
    return products.reshape(side, side, channels, -1).astype(x.dtype)
