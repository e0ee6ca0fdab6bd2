"""A 3x3 convolution with 16 multiplications for 4 outputs instead of 36.

F(2x2, 3x3) of Lavin and Gray, Fast Algorithms for Convolutional Neural Networks
(arXiv:1509.09308), section 4.1: each tile of 4 x 4 inputs and each kernel is transformed, the two
are multiplied place by place, which is one matrix product over channels for each of the 16 places,
and the result is transformed back into 2 x 2 outputs. Used on CPU only; its plain reference is
`convolution.convolve_reference`.

Shapes: B clips, F frames, M mel bins, C channels in, D channels out.
"""

import functools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

_Matrix = tuple[tuple[float, ...], ...]
# B^T, G and A^T of the paper.
_INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))
_MAX_VALUES = 2**23  # of x or y at a time, in groups of clips; transformed, 128 MiB


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x (B, F, M, C), kernel (3, 3, C, D) -> (B, F, M, D): stride 1, zeros around x."""
    batch, *shape, channels = x.shape
    kernels = _transform(_KERNEL, [[kernel[i, j] for j in range(3)] for i in range(3)])
    kernels = lax.optimization_barrier(kernels)
    most = _MAX_VALUES // (shape[0] * shape[1] * max(channels, kernel.shape[-1]))
    if not isinstance(batch, int) or batch <= most:  # an exported program takes any number
        return _convolve_tiles(x, kernels)
    clips = next((k for k in range(most, 1, -1) if batch % k == 0), 1)
    # Computed again for the gradient, rather than keep the transformed inputs of all groups.
    group = jax.checkpoint(lambda x: _convolve_tiles(x, kernels))
    y = lax.map(group, x.reshape(-1, clips, *shape, channels))
    return y.reshape(batch, *shape, -1)


def _convolve_tiles(x: jax.Array, kernels: list[list[jax.Array]]) -> jax.Array:
    """`convolve` with a transformed kernel, 4 x 4 of (C, D)."""
    batch, frames, mels, channels = x.shape
    rows, columns = -(-frames // 2), -(-mels // 2)  # of tiles, two pixels apart
    tiles = batch * rows * columns
    x = jnp.pad(x, ((0, 0), (1, 2 * rows - frames + 1), (1, 2 * columns - mels + 1), (0, 0)))
    x = x.reshape(batch, rows + 1, 2, columns + 1, 2, channels)
    places = [(i // 2, i % 2) for i in range(4)]
    inputs = [
        _combine(_INPUT, [row[:, :, m : m + columns, j] for m, j in places])
        for row in _combine(_INPUT, [x[:, f : f + rows, i] for f, i in places])
    ]
    inputs = lax.optimization_barrier(jax.tree.map(lambda x: x.reshape(tiles, channels), inputs))
    # 16 products: one of stacked matrices is slower.
    products = lax.optimization_barrier(jax.tree.map(jnp.matmul, inputs, kernels))
    y = jnp.stack([jnp.stack(row, axis=1) for row in _transform(_OUTPUT, products)], axis=1)
    outputs = y.shape[-1]
    y = y.reshape(batch, rows, columns, 2, 2, outputs).swapaxes(2, 3)
    return y.reshape(batch, 2 * rows, 2 * columns, outputs)[:, :frames, :mels]


def _transform(matrix: _Matrix, grid: list[list[jax.Array]]) -> list[list[jax.Array]]:
    """matrix @ grid @ matrix.T."""
    for _ in range(2):
        rows = [_combine(matrix, row) for row in grid]
        grid = [list(column) for column in zip(*rows, strict=True)]
    return grid


def _combine(matrix: _Matrix, parts: Sequence[jax.Array]) -> list[jax.Array]:
    """matrix @ parts."""
    weighted = [[w * part for w, part in zip(row, parts, strict=True) if w] for row in matrix]
    return [functools.reduce(operator.add, terms) for terms in weighted]
