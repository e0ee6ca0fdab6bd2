"""How far an explanation can be trusted: the scene's log-odds while parts of the graph are removed.

Shapes: n events, P points of a curve.
"""

import dataclasses
import itertools
import math

import numpy as np

from ergl_jax.inference.contributions import GraphReader, scene_log_odds, without_events

MAX_POINTS = 26  # of a curve
RANDOM_ORDERS = 39  # with the explanation's own there are 40: the smallest p-value is 1/40
SIGNIFICANCE = 0.05
MAX_SETS = 10_000  # sets of events of one size that `counterfactual` tries


@dataclasses.dataclass(frozen=True)
class Curves:
    """Log-odds of a scene while events, or edges, are deleted or inserted one after another.

    Attributes:
      what: "events" or "edges".
      shares: (P,), of the parts that are deleted or inserted.
      delete, insert: log-odds (P,) by order: "explanation", "random" (the mean of RANDOM_ORDERS),
        "reverse". Deletion starts at the whole graph, insertion at an empty one.
      delete_chance, insert_chance: permutation p-values: the share of orders, random ones and the
        explanation's own, whose area is at least as good.
    """

    what: str
    shares: np.ndarray
    delete: dict[str, np.ndarray]
    insert: dict[str, np.ndarray]
    delete_chance: float
    insert_chance: float

    @property
    def areas(self) -> dict[str, dict[str, float]]:
        """Area under each curve, its mean log-odds. Low is good for "delete", high for "insert"."""
        return {
            name: {order: _area(self.shares, curve) for order, curve in curves.items()}
            for name, curves in (("delete", self.delete), ("insert", self.insert))
        }

    @property
    def is_better_than_chance(self) -> bool:
        """Whether the order of deletion is significantly better than random ones."""
        return self.delete_chance <= SIGNIFICANCE


def curves(
    reader: GraphReader,
    nodes: np.ndarray,
    edges: np.ndarray,
    scene: int,
    contributions: np.ndarray,
    *,
    seed: int = 0,
) -> Curves:
    """Curves for contributions of events (n,) or of edges (n, n), the diagonal included."""
    what = "events" if contributions.ndim == 1 else "edges"
    flat = contributions.ravel()
    rng = np.random.default_rng(seed)
    best = np.argsort(-flat, kind="stable")
    orders = [best, best[::-1], *(rng.permutation(flat.size) for _ in range(RANDOM_ORDERS))]
    rank = np.argsort(np.stack(orders), axis=1)  # (orders, parts): the place of each part
    points = min(MAX_POINTS, flat.size + 1)
    counts = np.unique(np.linspace(0, flat.size, points).round().astype(int))
    first = rank[:, None, :] < counts[:, None]  # (orders, P, parts)
    rows = np.concatenate([~first, first]).reshape(-1, flat.size)
    if what == "events":
        masks = without_events(~rows)
    else:
        masks = np.ones((len(rows), len(nodes)), bool), rows.reshape(-1, *contributions.shape)
    log_odds = np.asarray(scene_log_odds(reader.read(nodes, edges, *masks), scene))
    delete, insert = log_odds.reshape(2, len(orders), len(counts))
    shares = counts / flat.size

    def by_order(each: np.ndarray) -> dict[str, np.ndarray]:
        return {"explanation": each[0], "random": each[2:].mean(axis=0), "reverse": each[1]}

    def p_value(each: np.ndarray, sign: int) -> float:
        areas = sign * np.array([_area(shares, curve) for curve in each])
        return float((1 + (areas[2:] >= areas[0]).sum()) / (1 + RANDOM_ORDERS))

    return Curves(
        what, shares, by_order(delete), by_order(insert), p_value(delete, -1), p_value(insert, 1)
    )


def _area(shares: np.ndarray, curve: np.ndarray) -> float:
    return float(np.trapezoid(curve, shares))


@dataclasses.dataclass(frozen=True)
class Counterfactual:
    """Events (indices) whose removal changes the scene to `scene`.

    `smallest`: every smaller set was tried. Otherwise the search was greedy.
    """

    events: tuple[int, ...]
    scene: int
    smallest: bool


def counterfactual(
    reader: GraphReader, nodes: np.ndarray, edges: np.ndarray, scene: int
) -> Counterfactual | None:
    """The smallest set of events whose removal changes the scene; None if no tried set does.

    Tries all sets of a size while these are at most MAX_SETS, then adds events one by one, each
    time the one that lowers the scene's log-odds most. The same breaks ties between sets.
    """
    n, size = len(nodes), 0

    def remove(sets: list[tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray]:
        """Scenes and log-odds, one for each set."""
        removed = np.zeros((len(sets), n), bool)
        for row, chosen in zip(removed, sets, strict=True):
            row[list(chosen)] = True
        logits = reader.read(nodes, edges, *without_events(removed))
        return logits.argmax(axis=1), np.asarray(scene_log_odds(logits, scene))

    chosen: tuple[int, ...] = ()
    while size < n and math.comb(n, size + 1) <= MAX_SETS:
        size += 1
        sets = list(itertools.combinations(range(n), size))
        scenes, log_odds = remove(sets)
        chosen = sets[log_odds.argmin()]
        if (scenes != scene).any():
            best = np.where(scenes != scene, log_odds, np.inf).argmin()
            return Counterfactual(sets[best], int(scenes[best]), smallest=True)
    while len(chosen) < n:
        sets = [(*chosen, event) for event in range(n) if event not in chosen]
        scenes, log_odds = remove(sets)
        best = log_odds.argmin()
        chosen = sets[best]
        if scenes[best] != scene:
            return Counterfactual(chosen, int(scenes[best]), smallest=False)
    return None
