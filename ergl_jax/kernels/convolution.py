"""The encoders' convolution, with what makes it fast on CPU (docs/performance.md).

XLA turns a convolution into a matrix product of patches. On CPU that product is slow where the
output has few channels, and so are gradients: the kernel's, whose patches are one batch wide, and
the input's, for which a large kernel is transposed first. Here the same sums are asked for in
shapes that it is good at, and where there are many channels by fewer multiplications (winograd.py);
on other platforms, as they come. It can't be differentiated forward (jax.jvp).

Shapes: B clips, F frames, M mel bins, C channels in, D channels out, K the side of the kernel.
"""

import jax
import jax.numpy as jnp
from jax import lax

from ergl_jax.kernels import winograd

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_WIDE = 32  # output channels from which that product is fast
_FEW_CLIPS = 4  # clips below which a kernel's gradient is slow
_MANY_CHANNELS = (
    128  # channels in and out from which Winograd's transformations cost less than they save
)
_MANY_PIXELS = 128  # of a clip, from which that of the kernel does


@jax.custom_vjp
def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x (B, F, M, C), kernel (K, K, C, D), K odd -> (B, F, M, D): stride 1, zeros around x."""
    return lax.platform_dependent(x, kernel, cpu=_cpu_convolve, default=_plain)


def _forward(x, kernel):
    return convolve(x, kernel), (x, kernel)


def _backward(kept, dy):
    return lax.platform_dependent(*kept, dy, cpu=_cpu_gradients, default=_plain_gradients)


convolve.defvjp(_forward, _backward)


def _plain(x: jax.Array, kernel: jax.Array, padding="SAME") -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=_LAYOUT)


def _plain_gradients(x, kernel, dy):
    return jax.vjp(_plain, x, kernel)[1](dy)


def _use_winograd(x: jax.Array, kernel: jax.Array) -> bool:
    # Whatever the number of clips, so that a clip's rounding isn't its neighbours' business, and an
    # exported program, for any number, computes what its model does.
    _, frames, mels, inputs = x.shape
    fits = kernel.shape[0] == 3 and x.dtype == jnp.float32
    return (
        fits and min(inputs, kernel.shape[-1]) >= _MANY_CHANNELS and frames * mels >= _MANY_PIXELS
    )


def _cpu_convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return (winograd.convolve if _use_winograd(x, kernel) else _convolve_packed_mels)(x, kernel)


def _convolve_packed_mels(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Some neighbouring mel bins at once, so that an output of few channels becomes a wide one.

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


def _cpu_gradients(x, kernel, dy):
    # With `cpu.use_barriers`: what is transposed below is read, not computed on the way.
    x, dy = lax.optimization_barrier((x, dy))
    if _use_winograd(x, kernel):
        return jax.vjp(winograd.convolve, x, kernel)[1](dy)
    batch, frames, mels, inputs = x.shape
    outputs = kernel.shape[-1]
    small = batch * frames * mels <= outputs
    if small or (inputs == 1 and outputs >= _WIDE):
        dx = _input_gradient_col2im(dy, kernel)
    else:
        dx = _convolve_packed_mels(dy, jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    if small:
        return dx, _kernel_gradient_im2col(x, dy, kernel.shape[0])
    if batch < _FEW_CLIPS:
        return dx, _kernel_gradient_in_segments(x, kernel, dy)
    if outputs < _WIDE and x.dtype == jnp.float32:  # the copies' gradients are added in x's type
        return dx, jax.vjp(lambda k: _convolve_packed_mels(x, k), kernel)[1](dy)[0]
    return dx, jax.vjp(lambda k: _plain(x, k), kernel)[1](dy)[0]


def _kernel_gradient_in_segments(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> jax.Array:
    """The kernel's gradient from clips cut in time, into up to 2 * _FEW_CLIPS pieces.

    XLA sums over the clips innermost, and a sum over so few is a short product.
    """
    batch, frames = x.shape[:2]
    reach = kernel.shape[0] // 2
    pieces = min(frames, -(-2 * _FEW_CLIPS // batch))
    length = -(-frames // pieces)
    missing = pieces * length - frames
    x = jnp.pad(x, ((0, 0), (reach, reach + missing), (0, 0), (0, 0)))
    # Each piece with the neighbouring frames that its outputs see.
    x = jnp.stack([x[:, i * length :][:, : length + 2 * reach] for i in range(pieces)], axis=1)
    dy = jnp.pad(dy, ((0, 0), (0, missing), (0, 0), (0, 0)))
    x, dy = x.reshape(-1, *x.shape[2:]), dy.reshape(batch * pieces, length, *dy.shape[2:])
    return jax.vjp(lambda k: _plain(x, k, ((0, 0), (reach, reach))), kernel)[1](dy)[0]


def _input_gradient_col2im(dy: jax.Array, kernel: jax.Array) -> jax.Array:
    """The input's gradient: what each output sends to each of its inputs, then added up.

    One product with the kernel as it lies; right where there are fewer outputs than channels.
    """
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
    return sum(received).astype(dy.dtype)


def _kernel_gradient_im2col(x: jax.Array, dy: jax.Array, side: int) -> jax.Array:
    """The kernel's gradient as one product with the patches of x, which needs no transposition."""
    _, frames, mels, inputs = x.shape
    reach = side // 2
    x = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    offsets = [(i, j) for i in range(side) for j in range(side)]
    patches = jnp.concatenate([x[:, i : i + frames, j : j + mels] for i, j in offsets], axis=-1)
    products = jnp.einsum("bfmc,bfmd->cd", patches, dy, preferred_element_type=jnp.float32)
    return products.reshape(side, side, inputs, -1).astype(x.dtype)
