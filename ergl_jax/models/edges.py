"""Multi-dimensional edge learning, MEL: a feature for each ordered pair of events (§2.2).

Shapes: B clips, n events, T tokens an event, C channels. The edge e_ij at [b, i, j] is what event i
receives from event j.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from ergl_jax.models.layers import he_uniform

MOST_LOGITS = 2**29  # of an attention at a time, 2 GiB: 25 events at a batch of 512 are below


def in_blocks(f: Callable, x: jax.Array | tuple, logits: int) -> jax.Array:
    """f(x), of arrays (B, N, ...), in blocks along N that each make MOST_LOGITS logits or fewer.

    `logits` is how many all of x makes. Where that is too many, blocks are computed one after the
    other, and again in the backward pass, which otherwise would keep the logits of all.
    """
    # Of a batch of any size, as `ergl export` writes, nothing can be counted.
    if is_symbolic_dim(logits) or logits <= MOST_LOGITS:
        return f(x)
    length = jax.tree.leaves(x)[0].shape[1]
    size = max(1, length // -(-logits // MOST_LOGITS))
    blocks = -(-length // size)

    def split(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (0, blocks * size - length)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], blocks, size, *x.shape[2:]), 1, 0)

    # A loop keeps the compiler from computing a block once for both passes.
    y = jax.lax.map(jax.checkpoint(f, prevent_cse=False), jax.tree.map(split, x))
    y = jnp.moveaxis(y, 0, 1)
    return y.reshape(y.shape[0], blocks * size, *y.shape[3:])[:, :length]


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

        def attend(query: jax.Array) -> jax.Array:
            attention = _softmax(jnp.einsum("bqc,bkc->bqk", query, key))
            return jnp.einsum("bqk,bkc->bqc", attention.astype(self.dtype), value)

        s = in_blocks(attend, query, batch * (events * tokens) ** 2)
        return s.reshape(v.shape)


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
        batch, events, tokens, _ = s.shape
        query, key, value = _Projections(self.dtype)(s)

        def receive(x: tuple[jax.Array, jax.Array]) -> jax.Array:
            key, value = x
            # j asks, i answers. In the order in which the product comes: no transposition.
            logits = jnp.einsum("bjqc,bikc->bjqik", query, key)
            attention = _softmax(logits).mean(axis=2)  # (B, n, i, T), j before i
            return jnp.einsum("bjik,bikc->bijc", attention.astype(self.dtype), value)

        return in_blocks(receive, (key, value), batch * (events * tokens) ** 2)


class EdgeLearning(nn.Module):
    """MEL: NCM, then NNM and GAP (§2.2)."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, v: jax.Array) -> jax.Array:
        """Tokens (B, n, T, C) -> edges (B, n, n, C)."""
        s = NodeContext(self.dtype, name="ncm")(v)
        return NodePairs(self.dtype, name="nnm")(s)
