"""Attention in blocks of queries, where all logits at once would be too many.

Shapes: B clips, N tokens.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

MAX_LOGITS = 2**29  # of an attention at a time, 2 GiB: 25 events at a batch of 512 are below
MAX_CACHED_LOGITS = 2**21  # on CPU, 8 MiB: more leave its cache between two passes over them


def attend(f: Callable, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """f(query, key, value) of each clip: arrays (B, N, ...) -> (B, N, ...).

    f sees one clip, (N, ...), and any part of its queries. There is a logit for each pair of a
    clip's tokens: where they are more than MAX_LOGITS, blocks of queries of about so many are
    computed one after the other; on CPU, where they are more than MAX_CACHED_LOGITS, clip after
    clip, and within a clip block after block. The backward pass then computes the blocks again
    rather than keep all.
    """
    batch, *tokens = key.shape[:-1]
    logits = math.prod(tokens) ** 2  # of a clip
    total = batch * logits
    # Of a batch of any size, as `ergl export` writes, nothing can be counted.
    countless = is_symbolic_dim(total)

    def in_blocks(number: int, most: int, query: jax.Array, *others: jax.Array) -> jax.Array:
        return _in_blocks(lambda some: f(some, *others), query, -(-number // most))

    def together(*x: jax.Array) -> jax.Array:
        few = countless or total <= MAX_LOGITS
        return jax.vmap(f if few else partial(in_blocks, total, MAX_LOGITS))(*x)

    def in_turn(*x: jax.Array) -> jax.Array:
        return jax.lax.map(lambda clip: in_blocks(logits, MAX_CACHED_LOGITS, *clip), x)

    if countless or total <= MAX_CACHED_LOGITS:
        return together(query, key, value)
    return jax.lax.platform_dependent(query, key, value, cpu=in_turn, default=together)


def _in_blocks(f: Callable, x: jax.Array, blocks: int) -> jax.Array:
    """f(x), (N, ...) -> (N, ...), in so many blocks along N, or N where that is less."""
    length = x.shape[0]
    size = -(-length // min(blocks, length))
    blocks = -(-length // size)
    x = jnp.pad(x, ((0, blocks * size - length),) + ((0, 0),) * (x.ndim - 1))
    # A loop keeps the compiler from computing a block once for both passes.
    y = jax.lax.map(jax.checkpoint(f, prevent_cse=False), x.reshape(blocks, size, *x.shape[1:]))
    return y.reshape(blocks * size, *y.shape[2:])[:length]
