"""Attention within each clip, in blocks of queries where all logits at once would be too many.

| device | logits of the batch | computed |
|---|---|---|
| any | up to 2^21 | all at once |
| CPU | more | clip after clip, in blocks of at most 2^21 logits: 8 MiB, which fits its cache |
| GPU, TPU | up to 2^27 | all at once; that is 512 MiB, and 25 events at a batch of 128 have fewer |
| GPU, TPU | more | all clips at once, in blocks of at most 2^27 logits |

Compiled for v5e, MEL with its gradient (400 events, 64 clips) takes 7.4 GB of memory and 57 GB of
memory traffic; in blocks of 2^29 logits 14.8 and 137 GB.

The backward pass computes the blocks again rather than keep them: on CPU 400 events at a batch of
64 take 34 GB instead of 234. On two CPU cores, a device each, MEL and its gradient take 55 instead
of 64 ms (25 events, eight clips) and 209 instead of 353 ms (100 events, two clips).

Shapes: B clips, N tokens of a clip, n events, T tokens of an event, C channels.
"""

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

MAX_LOGITS = 2**27
MAX_CACHED_LOGITS = 2**21


def attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """softmax(query keyᵀ) value of each clip, the softmax in float32: (B, N, C) -> (B, N, C)."""

    def of_clip(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return _softmax(query @ key.T).astype(value.dtype) @ value

    return _in_blocks(of_clip, query, key, value)


def attention_reference(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """`attention` of all clips at once."""
    weights = _softmax(jnp.einsum("bqc,bkc->bqk", query, key))
    return jnp.einsum("bqk,bkc->bqc", weights.astype(value.dtype), value)


def mean_pair_attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """The mean over event j's queries of their attention to event i alone, at [b, j, i].

    (B, n, T, C) -> (B, n, n, C). The weights are averaged before the product with the values, with
    which the mean commutes: no (B, n, n, T, C) array.
    """

    def of_clip(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        events, tokens, channels = key.shape
        # One product of rows: as an einsum over events and tokens, XLA transposes its gradient.
        rows = query.reshape(-1, channels) @ key.reshape(-1, channels).T
        logits = rows.reshape(query.shape[0], tokens, events, tokens)  # (j, T, i, T)
        weights = _softmax(logits).mean(axis=1)  # (j, i, T)
        return jnp.einsum("jik,ikc->jic", weights.astype(value.dtype), value)

    return _in_blocks(of_clip, query, key, value)


def mean_pair_attention_reference(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """`mean_pair_attention` pair by pair: attention first, then its mean over the queries."""
    weights = _softmax(jnp.einsum("bjqc,bikc->bjiqk", query, key)).astype(value.dtype)
    return jnp.einsum("bjiqk,bikc->bjiqc", weights, value).mean(axis=3)


def _softmax(logits: jax.Array) -> jax.Array:
    return nn.softmax(logits.astype(jnp.float32), axis=-1)


def _in_blocks(f: Callable, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """f(query, key, value) of each clip, as the table above says; arrays (B, N, ...).

    f takes one clip, (N, ...), and any part of its queries.
    """
    batch, *tokens = key.shape[:-1]
    clip_logits = math.prod(tokens) ** 2
    logits = batch * clip_logits
    any_batch = is_symbolic_dim(logits)  # an exported program's: computed all at once

    def blocks(number: int, query: jax.Array, *others: jax.Array) -> jax.Array:
        return _map_blocks(lambda rows: f(rows, *others), query, number)

    def all_clips(*arrays: jax.Array) -> jax.Array:
        few = any_batch or logits <= MAX_LOGITS
        return jax.vmap(f if few else partial(blocks, -(-logits // MAX_LOGITS)))(*arrays)

    def clip_after_clip(*arrays: jax.Array) -> jax.Array:
        return jax.lax.map(lambda clip: blocks(-(-clip_logits // MAX_CACHED_LOGITS), *clip), arrays)

    if any_batch or logits <= MAX_CACHED_LOGITS:
        return all_clips(query, key, value)
    return jax.lax.platform_dependent(query, key, value, cpu=clip_after_clip, default=all_clips)


def _map_blocks(f: Callable, x: jax.Array, number: int) -> jax.Array:
    """f(x), (N, ...) -> (N, ...), in `number` blocks along N, or N where that is less."""
    length = x.shape[0]
    size = -(-length // min(number, length))
    number = -(-length // size)
    x = jnp.pad(x, ((0, number * size - length),) + ((0, 0),) * (x.ndim - 1))
    # A loop keeps the compiler from computing a block once for both passes.
    y = jax.lax.map(jax.checkpoint(f, prevent_cse=False), x.reshape(number, size, *x.shape[1:]))
    return y.reshape(number * size, *y.shape[2:])[:length]
