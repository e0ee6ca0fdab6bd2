"""Gated graph convolution (§2.3; Bresson & Laurent, arXiv 1711.07553).

One layer on nodes h_i and edges e_ij, where node i receives and node j sends:

    ê_ij = A h_i + B h_j + C e_ij
    e'_ij = e_ij + ReLU(BN(ê_ij))
    h'_i = h_i + ReLU(BN(U h_i + Σ_j η_ij ⊙ V h_j))

with gates η_ij = σ(ê_ij) / (Σ_j σ(ê_ij) + 1e-6) (gate="sigmoid") or, as in ME-GraphAU (IJCAI 2022),
η_ij = softmax_j(σ(e'_ij)) / n (gate="softmax").

Shapes: B clips, n nodes, C channels. All n² ordered pairs are edges, self-loops included, so edges
are dense arrays: e_ij is at [b, i, j].
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph
import numpy as np

from ergl_jax.models.layers import BatchNormReLU, linear

GATES = ("sigmoid", "softmax")


class GatedGCNLayer(nn.Module):
    """One layer, with `gate` one of GATES, else ValueError."""

    gate: str = "sigmoid"
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, h: jax.Array, e: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """h (B, n, C), e (B, n, n, C) -> h', e' and the gates η (B, n, n, C)."""
        a, b, c = (linear(x, name, self.dtype) for name, x in (("A", h), ("B", h), ("C", e)))
        e_hat = a[:, :, None] + b[:, None, :] + c  # ê
        e = e + BatchNormReLU(self.axis_name, self.dtype)(e_hat, train=train)  # e'
        eta = gates(e_hat, e, self.gate).astype(self.dtype)
        received = jnp.einsum("bijc,bjc->bic", eta, linear(h, "V", self.dtype))  # Σ_j η_ij ⊙ V h_j
        nodes = linear(h, "U", self.dtype) + received
        return h + BatchNormReLU(self.axis_name, self.dtype)(nodes, train=train), e, eta


def gates(e_hat: jax.Array, e_new: jax.Array, gate: str) -> jax.Array:
    """The gates η from ê and e', normalised over the senders j, in float32."""
    if gate == "sigmoid":
        sigma = nn.sigmoid(e_hat.astype(jnp.float32))
        return sigma / (sigma.sum(axis=2, keepdims=True) + 1e-6)
    if gate == "softmax":
        sigma = nn.sigmoid(e_new.astype(jnp.float32))
        return nn.softmax(sigma, axis=2) / e_new.shape[2]
    raise ValueError(f"gate={gate!r} is not one of: {', '.join(GATES)}")


def to_graphs_tuple(nodes: jax.Array, edges: jax.Array) -> jraph.GraphsTuple:
    """The learned graphs of a batch as one `jraph.GraphsTuple` of B graphs.

    Args:
      nodes: (B, n, C).
      edges: (B, n, n, D), at [b, i, j] what node i receives from node j.

    Returns:
      Nodes (B * n, C) and edges (B * n * n, D), no globals. edges[b, i, j] has receiver b * n + i
      and sender b * n + j.

    Raises:
      ValueError: the edges do not pair all nodes.
    """
    batch, n = nodes.shape[:2]
    if edges.shape[:3] != (batch, n, n):
        raise ValueError(f"edges {edges.shape} do not pair all nodes of {nodes.shape}")
    clip, receiver, sender = np.indices((batch, n, n)).reshape(3, -1)
    return jraph.GraphsTuple(
        nodes=nodes.reshape(batch * n, -1),
        edges=edges.reshape(batch * n * n, -1),
        receivers=clip * n + receiver,
        senders=clip * n + sender,
        globals=None,
        n_node=np.full(batch, n),
        n_edge=np.full(batch, n * n),
    )
