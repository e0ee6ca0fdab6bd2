"""The scene layer of the dynamic event graph: multinomial regression with few pairs of events.

    minimise  cross entropy + NODE_PENALTY Σ U² + λ Σ_{i<j} ‖(W_ij, W_ji)‖

The last term is a group lasso (Yuan & Lin, 2006): it sets all weights of a pair of events to zero
unless the pair lowers the cross entropy by more than it costs. The pairs that it keeps are fitted
once more with RELAXED λ, since λ also shrinks what it keeps (the relaxed lasso; Meinshausen, 2007).
Both problems are convex, so runs with the same activities get the same relations. Solved by FISTA
(Beck & Teboulle, 2009).

Shapes: N training clips, V validation clips, n events, k features of a node, K lags, S scenes.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ergl_jax.training.metrics import scene_metrics

GRID = (0.05, 0.02, 0.01, 0.005, 0.002)  # λ, where validation chooses
WITHOUT_VALIDATION = 0.02
RELAXED = 0.03
NODE_PENALTY = 1e-4
ITERATIONS = 2000


class Graphs(NamedTuple):
    """The graphs of a split: nodes (N, n, k), edges (N, n, n, K)."""

    nodes: np.ndarray
    edges: np.ndarray


class Weights(NamedTuple):
    """The scene layer: nodes (n k, S), bias (S,), edges (n n K, S)."""

    nodes: Any
    bias: Any
    edges: Any


def fit_relations(
    graphs: Graphs,
    scene: np.ndarray,
    *,
    num_scenes: int,
    validation: tuple[Graphs, np.ndarray] | None = None,
) -> Weights:
    """Fits the weights to training graphs and their scenes (N,).

    `validation`, graphs and scenes (V,), selects λ from GRID by class mean accuracy; ties go to the
    largest λ, which keeps the fewest relations. Without it λ is WITHOUT_VALIDATION.

    Raises ValueError for fewer than two scenes, or one without a training clip.
    """
    missing = set(range(num_scenes)) - set(scene.tolist())
    if missing or num_scenes < 2:
        raise ValueError(
            f"no training clip of scene number {', '.join(map(str, sorted(missing)))}"
            if missing
            else "a classifier needs more than a single scene"
        )
    if validation is None:
        (weights,) = _path(graphs, scene, num_scenes, (WITHOUT_VALIDATION,))
        return weights
    paths = list(_path(graphs, scene, num_scenes, GRID))
    held_out, truth = validation
    scores = [scene_metrics(logits(weights, held_out), truth) for weights in paths]
    return paths[int(np.argmax([score["class_mean_accuracy"] for score in scores]))]


def logits(weights: Weights, graphs: Graphs) -> np.ndarray:
    """(N, S)."""
    return _logits(weights, *(x.reshape(len(x), -1) for x in graphs))


def _logits(weights, nodes, edges):
    return nodes @ weights.nodes + edges @ weights.edges + weights.bias


def _path(
    graphs: Graphs, scene: np.ndarray, num_scenes: int, grid: tuple[float, ...]
) -> Iterator[Weights]:
    """The weights for each λ of a descending grid."""
    count, n = graphs.nodes.shape[:2]
    nodes, edges = (jnp.asarray(x.reshape(count, -1), jnp.float32) for x in graphs)
    targets = jax.nn.one_hot(scene, num_scenes)
    # The cross entropy's second derivative is at most half the largest eigenvalue of XᵀX / N.
    x = jnp.concatenate([nodes, edges, jnp.ones((count, 1))], axis=1)
    v = jnp.ones(x.shape[1])
    for _ in range(50):
        v = x.T @ (x @ v)
        v = v / jnp.linalg.norm(v)
    rate = 1 / (0.55 * jnp.linalg.norm(x @ v) ** 2 / count + 2 * NODE_PENALTY)
    weights = Weights(
        jnp.zeros((nodes.shape[1], num_scenes)),
        jnp.zeros(num_scenes),
        jnp.zeros((edges.shape[1], num_scenes)),
    )
    for penalty in grid:
        weights = _fista(weights, nodes, edges, targets, rate, penalty, n)
        kept = jnp.any(weights.edges.reshape(n, n, -1), axis=-1)
        shown = (edges.reshape(count, n, n, -1) * kept[..., None]).reshape(edges.shape)
        relaxed = _fista(weights, nodes, shown, targets, rate, RELAXED * penalty, n)
        yield Weights(*map(np.asarray, relaxed))


@partial(jax.jit, static_argnames="n")
def _fista(weights, nodes, edges, targets, rate, penalty, n):
    def objective(w):
        log_p = jax.nn.log_softmax(_logits(w, nodes, edges))
        return -(targets * log_p).sum(axis=1).mean() + NODE_PENALTY * jnp.square(w.nodes).sum()

    def shrink(w):
        pairs = w.edges.reshape(n, n, -1)
        squares = jnp.square(pairs).sum(axis=-1)
        norms = jnp.sqrt(squares + squares.T)
        kept = jnp.maximum(0, 1 - rate * penalty / jnp.maximum(norms, 1e-12))
        return w._replace(edges=(pairs * kept[..., None]).reshape(w.edges.shape))

    def step(carry, _):
        before, ahead, t = carry
        gradient = jax.grad(objective)(ahead)
        after = shrink(jax.tree.map(lambda x, g: x - rate * g, ahead, gradient))
        t_next = (1 + jnp.sqrt(1 + 4 * t * t)) / 2
        ahead = jax.tree.map(lambda x, y: x + (t - 1) / t_next * (x - y), after, before)
        return (after, ahead, t_next), None

    start: Any = (weights, weights, 1.0)
    (weights, *_), _ = jax.lax.scan(step, start, length=ITERATIONS)
    return weights
