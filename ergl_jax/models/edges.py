"""Multi-dimensional edge learning, MEL: a feature for each ordered pair of events (§2.2).

Shapes: B clips, n events, T tokens an event, C channels. The edge e_ij at [b, i, j] is what event i
receives from event j.
"""

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from ergl_jax.models.layers import he_uniform

MOST_LOGITS = 2**29  # of an attention at a time, 2 GiB: 25 events at a batch of 512 are below
CACHED_LOGITS = 2**21  # on CPU, 8 MiB: more leave its cache between two passes over them


def attend(f: Callable, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """f(query, key, value) of each clip: arrays (B, N, ...) -> (B, N, ...).

    f sees one clip, (N, ...), and any part of its queries. There is a logit for each pair of a
    clip's tokens: where they are more than MOST_LOGITS, blocks of queries of about so many are
    computed one after the other; on CPU, where they are more than CACHED_LOGITS, clip after clip
    and within a clip block after block. The backward pass then computes the blocks again rather
    than keep all.
    """
    batch, *tokens = key.shape[:-1]
    logits = math.prod(tokens) ** 2  # of a clip
    total = batch * logits
    # Of a batch of any size, as `ergl export` writes, nothing can be counted.
    countless = is_symbolic_dim(total)

    def in_blocks(number: int, most: int, query: jax.Array, *others: jax.Array) -> jax.Array:
        return _in_blocks(lambda some: f(some, *others), query, -(-number // most))

    def together(*x: jax.Array) -> jax.Array:
        few = countless or total <= MOST_LOGITS
        return jax.vmap(f if few else partial(in_blocks, total, MOST_LOGITS))(*x)

    def in_turn(*x: jax.Array) -> jax.Array:
        return jax.lax.map(lambda clip: in_blocks(logits, CACHED_LOGITS, *clip), x)

    if countless or total <= CACHED_LOGITS:
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


class _Projections(nn.Module):
    """The projections of one attention, without biases: x Wq / sqrt(d_k), x Wk, x Wv."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        def project(name: str) -> jax.Array:
            dense = nn.Dense(
                x.shape[-1], use_bias=False, kernel_init=he_uniform, dtype=self.dtype, name=name
            )
            return dense(x)

        # Divided here, where the queries are fewer than the logits would be.
        return project("query") / math.sqrt(x.shape[-1]), project("key"), project("value")


def _softmax(logits: jax.Array) -> jax.Array:
    """Over the last axis, in float32."""
    return nn.softmax(logits.astype(jnp.float32), axis=-1)


class NodeContext(nn.Module):
    """NCM: each event's tokens attend to the tokens of all events (eq. 1, 2)."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, v: jax.Array) -> jax.Array:
        """(B, n, T, C) -> S of that shape: S_i = softmax(v_i Wq (v_all Wk)' / sqrt(C)) v_all Wv."""
        batch, events, tokens, channels = v.shape
        query, key, value = _Projections(self.dtype)(v.reshape(batch, events * tokens, channels))

        def of_clip(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
            return _softmax(query @ key.T).astype(self.dtype) @ value

        return attend(of_clip, query, key, value).reshape(v.shape)


class NodePairs(nn.Module):
    """NNM followed by GAP: the edge of each ordered pair of events (eq. 3, 4).

    R_ij = softmax(S_j Wq (S_i Wk)' / sqrt(C)) S_i Wv, and e_ij is its mean over the query tokens.
    The mean commutes with the product with V, so the attention is averaged first, and each node is
    projected once rather than once a pair: the same numbers without an (n, n, T, C) tensor.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, s: jax.Array) -> jax.Array:
        """(B, n, T, C) -> (B, n, n, C)."""
        _, events, tokens, channels = s.shape
        query, key, value = _Projections(self.dtype)(s)

        def of_clip(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
            # j asks, i answers. One product of rows, or XLA transposes the logits' gradient.
            rows = query.reshape(-1, channels) @ key.reshape(-1, channels).T
            logits = rows.reshape(query.shape[0], tokens, events, tokens)  # (j, T, i, T)
            attention = _softmax(logits).mean(axis=1)  # (n, i, T), j before i
            return jnp.einsum("jik,ikc->jic", attention.astype(self.dtype), value)

        return attend(of_clip, query, key, value).swapaxes(1, 2)


class EdgeLearning(nn.Module):
    """MEL: NCM, then NNM and GAP (§2.2)."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, v: jax.Array) -> jax.Array:
        """Tokens (B, n, T, C) -> edges (B, n, n, C)."""
        s = NodeContext(self.dtype, name="ncm")(v)
        return NodePairs(self.dtype, name="nnm")(s)
