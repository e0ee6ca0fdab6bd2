"""Scene heads with known answers, for tests of explanations."""

import jax
import jax.numpy as jnp
import numpy as np

from ergl_jax.inference.contributions import GraphReader


def linear(node_weights, edge_weights=None, bias=0.0):
    """A GraphReader of two scenes: the first's log-odds are a weighted sum of all channels."""

    def readout(nodes, edges):
        total = bias + jnp.einsum("kic,i->k", nodes, jnp.asarray(node_weights))
        if edge_weights is not None:
            total += jnp.einsum("kijc,ij->k", edges, jnp.asarray(edge_weights))
        return jnp.stack([total, jnp.zeros_like(total)], axis=1)

    return GraphReader(readout)


def smooth(n, channels, scenes=3, seed=0):
    """A GraphReader in which all parts interact, smoothly."""
    rng = np.random.default_rng(seed)
    own, other = rng.normal(size=(2, channels, channels))
    last = rng.normal(size=(n, channels, scenes))

    def readout(nodes, edges):
        sent = edges * jax.nn.sigmoid(nodes @ other)[:, None]
        return jnp.einsum("kic,ics->ks", jnp.tanh(nodes @ own + sent.sum(axis=2)), last)

    return GraphReader(readout)


def graph(n, channels, seed=1):
    rng = np.random.default_rng(seed)
    nodes, edges = rng.normal(size=(n, channels)), rng.normal(size=(n, n, channels))
    return np.float32(nodes), np.float32(edges)
