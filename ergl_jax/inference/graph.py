"""The scene of an altered graph, and what each part of a graph adds to its scene.

Shapes: n events, C channels, K alterations.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

ALTERED_EDGES = 1 << 16  # edges that are read at a time, over all alterations


class GraphReader:
    """A readout of graphs by itself, compiled once: thousands of altered graphs a second.

    An event is removed by setting its node and all edges from and to it to zero, an edge by setting
    it to zero: what all edges are in the paper's ablation without MEL (table 4).

    Args:
      readout: nodes (K, n, C) and edges (K, n, n, C), at [k, i, j] what event i receives from
        event j -> scene logits (K, scenes).
    """

    def __init__(self, readout: Callable[[jax.Array, jax.Array], jax.Array]):
        def altered(nodes, edges, keep_nodes, keep_edges):
            return readout(nodes * keep_nodes[..., None], edges * keep_edges[..., None])

        def gradient(nodes, edges, scene, share):
            """Of the log-odds at `share` of the graph, (n, C) and (n, n, C)."""

            def log_odds(nodes, edges):
                return scene_log_odds(readout(nodes[None], edges[None])[0], scene)

            return jax.grad(log_odds, argnums=(0, 1))(share * nodes, share * edges)

        self._altered, self._gradient = jax.jit(altered), jax.jit(gradient)

    def read(
        self, nodes: np.ndarray, edges: np.ndarray, keep_nodes: np.ndarray, keep_edges: np.ndarray
    ) -> np.ndarray:
        """Scene logits (K, scenes) of a graph with parts of it removed.

        Args:
          nodes, edges: (n, C) and (n, n, C), the whole graph.
          keep_nodes: (K, n), 0 where a node is removed; its edges are not removed with it.
          keep_edges: (K, n, n), likewise.
        """
        size = max(1, ALTERED_EDGES // keep_edges[0].size)
        found = []
        for start in range(0, len(keep_nodes), size):
            part = [np.float32(x[start : start + size]) for x in (keep_nodes, keep_edges)]
            count = len(part[0])  # filled up, so that it compiles once
            part = [
                np.concatenate([x, np.zeros((size - count, *x.shape[1:]), x.dtype)]) for x in part
            ]
            found.append(np.asarray(self._altered(nodes, edges, *part))[:count])
        return np.concatenate(found)

    def contributions(
        self, nodes: np.ndarray, edges: np.ndarray, scene: int, *, steps: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """What each event (n,) and each edge (n, n) adds to the log-odds of a scene, in nats.

        Gradient times input: how the log-odds answer to a small change of that part. With `steps`,
        integrated gradients (arXiv 1703.01365), by that many points on the straight line from the
        empty graph to this one; their sum is, to some hundredths, the difference between the two
        graphs' log-odds.
        """
        shares = (np.arange(steps) + 0.5) / steps if steps else [1.0]
        each = [self._gradient(nodes, edges, scene, np.float32(share)) for share in shares]
        along = [np.mean([np.asarray(x) for x in part], axis=0) for part in zip(*each, strict=True)]
        return (along[0] * nodes).sum(-1), (along[1] * edges).sum(-1)


def scene_log_odds(
    logits: jax.Array, scene: jax.Array | int, against: int | None = None
) -> jax.Array:
    """log(p / q), p the probability of a scene by logits (..., scenes) -> (...).

    q is that of all other scenes together, so this is the log-odds, or that of `against` alone.
    """
    number = jnp.arange(logits.shape[-1])
    others = number != scene if against is None else number == against
    rest = jax.nn.logsumexp(logits, axis=-1, where=others)
    return jnp.take(logits, scene, axis=-1) - rest


def without_events(removed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The masks (K, n) and (K, n, n) of `GraphReader.read` for events removed (K, n), boolean."""
    kept = ~removed
    return kept, kept[:, :, None] & kept[:, None, :]
