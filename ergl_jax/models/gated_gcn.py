"""Gated graph convolution over a fully connected graph (§2.3; Bresson & Laurent, arXiv 1711.07553).

Shapes: B clips, n nodes, C channels. At [b, i, j], node i receives and node j sends; all n * n
ordered pairs are edges, self-loops among them, so edges are dense arrays.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph
import numpy as np

from ergl_jax.errors import InputError
from ergl_jax.models.layers import BatchNormReLU, he_uniform

GATES = ("sigmoid", "softmax")


class GatedGCNLayer(nn.Module):
    """One layer on nodes h and edges e.

    ê_ij = A h_i + B h_j + C e_ij
    e'_ij = e_ij + ReLU(BN(ê_ij))
    h'_i = h_i + ReLU(BN(U h_i + Σ_j η_ij ⊙ V h_j))

    with η_ij = σ(ê_ij) / (Σ_j σ(ê_ij) + 1e-6) for gate="sigmoid", and, as in ME-GraphAU
    (IJCAI 2022), η_ij = softmax_j(σ(e'_ij)) / n for gate="softmax".
    """

    gate: str = "sigmoid"
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, h: jax.Array, e: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """h (B, n, C), e (B, n, n, C) -> h', e' and the gates η (B, n, n, C)."""

        def linear(name: str, x: jax.Array) -> jax.Array:
            dense = nn.Dense(
                x.shape[-1], use_bias=False, kernel_init=he_uniform, dtype=self.dtype, name=name
            )
            return dense(x)

        e_hat = linear("A", h)[:, :, None] + linear("B", h)[:, None, :] + linear("C", e)
        e = e + BatchNormReLU(self.axis_name, self.dtype)(e_hat, train=train)
        eta = gates(e_hat, e, self.gate).astype(self.dtype)
        received = jnp.einsum("bijc,bjc->bic", eta, linear("V", h))
        nodes = linear("U", h) + received
        return h + BatchNormReLU(self.axis_name, self.dtype)(nodes, train=train), e, eta


def gates(e_hat: jax.Array, e_new: jax.Array, gate: str) -> jax.Array:
    """The gates η of GatedGCNLayer, normalised over the senders j, in float32."""
    if gate == "sigmoid":
        sigma = nn.sigmoid(e_hat.astype(jnp.float32))
        return sigma / (sigma.sum(axis=2, keepdims=True) + 1e-6)
    if gate == "softmax":
        sigma = nn.sigmoid(e_new.astype(jnp.float32))
        return nn.softmax(sigma, axis=2) / e_new.shape[2]
    raise InputError(f"model.gcn.gate={gate!r} is not one of: {', '.join(GATES)}")


def to_graphs_tuple(nodes: jax.Array, edges: jax.Array) -> jraph.GraphsTuple:
    """The learned graphs of a batch as one `jraph.GraphsTuple` of B graphs.

    Args:
      nodes: (B, n, C).
      edges: (B, n, n, D), at [b, i, j] what node i receives from node j.

    Returns:
      Nodes (B * n, C); edges (B * n * n, D), of which the one with receiver i and sender j of clip
      b (indices b * n + i and b * n + j) is edges[b, i, j]. No globals.
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
