"""Multi-dimensional edge learning (MEL): a feature for each ordered pair of events (§2.2).

The tokens v_i (T, C) of event i first attend to those of all events, v_all (n T, C) (NCM):

    S_i = softmax(Q_i K_allᵀ) V_all                                   (1)
    Q_i = v_i Wq / √C,  K_all = v_all Wk,  V_all = v_all Wv           (2)

Then the tokens of each event attend to those of each other one (NNM), and the mean over the query
tokens (GAP) is the edge:

    R_ij = softmax(Q_j K_iᵀ) V_i,  Q_j = S_j Wq' / √C,  K_i = S_i Wk',  V_i = S_i Wv'    (3)
    e_ij = GAP(R_ij) = 1/T Σ_t R_ij[t]                                (4)

e_ij is the edge on which node i receives from node j. Each projection is one matrix for all events.

Shapes: B clips, n events, T tokens an event, C channels; e_ij is at [b, i, j].
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.kernels.attention import attention, mean_pair_attention
from ergl_jax.models.layers import linear


class EdgeLearning(nn.Module):
    """MEL: eq. 1 to 4."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, v: jax.Array) -> jax.Array:
        """Tokens (B, n, T, C) -> edges (B, n, n, C)."""
        s = NodeContext(self.dtype, name="ncm")(v)  # (B, n, T, C)
        return NodePairs(self.dtype, name="nnm")(s)  # (B, n, n, C)


class NodeContext(nn.Module):
    """NCM: eq. 1 and 2."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, v: jax.Array) -> jax.Array:
        """Tokens (B, n, T, C) -> S of that shape."""
        batch, events, tokens, channels = v.shape
        v_all = v.reshape(batch, events * tokens, channels)
        query, key, value = _Projections(self.dtype)(v_all)  # eq. 2: (B, n T, C) each
        return attention(query, key, value).reshape(v.shape)  # eq. 1


class NodePairs(nn.Module):
    """NNM and GAP: eq. 3 and 4."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, s: jax.Array) -> jax.Array:
        """S (B, n, T, C) -> edges (B, n, n, C)."""
        query, key, value = _Projections(self.dtype)(s)  # (B, n, T, C) each
        e = mean_pair_attention(query, key, value)  # eq. 3, 4: e_ij at [b, j, i]
        return e.swapaxes(1, 2)


class _Projections(nn.Module):
    """x Wq / √C, x Wk and x Wv, without biases."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        query, key, value = (linear(x, name, self.dtype) for name in ("query", "key", "value"))
        return query / math.sqrt(x.shape[-1]), key, value
