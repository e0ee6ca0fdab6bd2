"""What each event and relation of a graph contributes to its scene; scenes of altered graphs.

Shapes: n events, C channels, K altered graphs.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

EDGES_PER_CALL = 1 << 16  # over all altered graphs of one call


class GraphReader:
    """The scene head of a model on its own, compiled once: thousands of altered graphs a second.

    An event is removed by setting its node and all its edges to zero, an edge by setting it to
    zero, as in the paper's ablation without MEL (table 4).

    Args:
      readout: nodes (K, n, C) and edges (K, n, n, C) -> scene logits (K, scenes). edges[k, i, j] is
        what event i receives from event j.
    """

    def __init__(self, readout: Callable[[jax.Array, jax.Array], jax.Array]):
        def masked(nodes, edges, keep_nodes, keep_edges):
            return readout(nodes * keep_nodes[..., None], edges * keep_edges[..., None])

        def gradient(nodes, edges, scene, share):
            def log_odds(nodes, edges):
                return scene_log_odds(readout(nodes[None], edges[None])[0], scene)

            return jax.grad(log_odds, argnums=(0, 1))(share * nodes, share * edges)

        self._masked, self._gradient = jax.jit(masked), jax.jit(gradient)

    def read(
        self, nodes: np.ndarray, edges: np.ndarray, keep_nodes: np.ndarray, keep_edges: np.ndarray
    ) -> np.ndarray:
        """Scene logits (K, scenes) of a graph with parts of it removed.

        Args:
          nodes, edges: (n, C) and (n, n, C), the whole graph.
          keep_nodes: (K, n), 0 removes a node, but not its edges.
          keep_edges: (K, n, n), 0 removes an edge.
        """
        size = max(1, EDGES_PER_CALL // keep_edges[0].size)
        logits = []
        for start in range(0, len(keep_nodes), size):
            masks = [x[start : start + size].astype(np.float32) for x in (keep_nodes, keep_edges)]
            count = len(masks[0])
            # Padded to one size, so that it compiles once.
            masks = [np.pad(x, [(0, size - count), *[(0, 0)] * (x.ndim - 1)]) for x in masks]
            logits.append(np.asarray(self._masked(nodes, edges, *masks))[:count])
        return np.concatenate(logits)

    def contributions(
        self, nodes: np.ndarray, edges: np.ndarray, scene: int, *, steps: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Contributions of events (n,) and edges (n, n) to the log-odds of a scene, in nats."""
        by_node, by_edge = self.terms(nodes, edges, scene, steps=steps)
        return by_node.sum(-1), by_edge.sum(-1)

    def terms(
        self, nodes: np.ndarray, edges: np.ndarray, scene: int, *, steps: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """What each channel of nodes (n, C) and edges (n, n, C) contributes to the log-odds.

        Gradient times input; with `steps`, integrated gradients (arXiv 1703.01365) over that many
        points between the empty graph and this one: their sum is about the difference between the
        log-odds of the two graphs.
        """
        shares = (np.arange(steps) + 0.5) / steps if steps else [1.0]
        gradients = [self._gradient(nodes, edges, scene, np.float32(share)) for share in shares]
        by_node, by_edge = (
            np.mean([np.asarray(x) for x in each], axis=0) for each in zip(*gradients, strict=True)
        )
        return by_node * nodes, by_edge * edges


def scene_log_odds(
    logits: jax.Array | np.ndarray, scene: jax.Array | int, against: int | None = None
) -> jax.Array:
    """log(p / q) of logits (..., scenes) -> (...): p of `scene`, q of `against` or all others."""
    indices = jnp.arange(logits.shape[-1])
    others = indices != scene if against is None else indices == against
    rest = jax.nn.logsumexp(logits, axis=-1, where=others)
    return jnp.take(logits, scene, axis=-1) - rest


def without_events(removed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks (K, n), (K, n, n) for `GraphReader.read` that remove events, given as bools (K, n)."""
    kept = ~removed
    return kept, kept[:, :, None] & kept[:, None, :]
