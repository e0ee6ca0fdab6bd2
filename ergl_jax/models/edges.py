"""Multi-dimensional edge learning, MEL: a feature for each ordered pair of events (§2.2).

Shapes: B clips, n events, T tokens an event, C channels. The edge e_ij at [b, i, j] is what event i
receives from event j.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.kernels.attention import attend
from ergl_jax.models.layers import he_uniform


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
