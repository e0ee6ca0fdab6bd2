"""How far an explanation can be trusted: parts removed in its order and in others.

Shapes: n events, K alterations, P points of a curve.
"""

import dataclasses
import itertools
import math

import numpy as np

from ergl_jax.inference.graph import GraphReader, scene_log_odds, without_events

POINTS = 26  # of a curve, at most
RANDOM_ORDERS = 39  # so that one in forty is the least share by chance
CHANCE = 0.05
EXHAUSTIVE = 10_000  # sets of events that are all tried


@dataclasses.dataclass(frozen=True)
class Curves:
    """The log-odds of a scene while events, or edges, are removed or put in one after another.

    Attributes:
      what: "events" or "edges".
      shares: (P,), of the parts that are removed or put in.
      delete: by order ("explanation", "random", "reverse") the log-odds (P,) after removal from
        the whole graph; "random" is the mean of RANDOM_ORDERS.
      insert: likewise, put into an empty one.
      delete_chance, insert_chance: the share of orders, random ones and the explanation's own,
        that do at least as well: 1/40 at best.
    """

    what: str
    shares: np.ndarray
    delete: dict[str, np.ndarray]
    insert: dict[str, np.ndarray]
    delete_chance: float
    insert_chance: float

    @property
    def areas(self) -> dict[str, dict[str, float]]:
        """The area under each curve: its mean log-odds. Deleting well is low, inserting well high.

        {"delete" or "insert": {order: area}}.
        """
        return {
            name: {order: _area(self.shares, curve) for order, curve in curves.items()}
            for name, curves in (("delete", self.delete), ("insert", self.insert))
        }

    @property
    def sentence(self) -> str:
        """What these curves say, in words."""
        area = self.areas["delete"]
        numbers = (
            f"deleting {self.what} in its order leaves {area['explanation']:.2f} nats on average, "
            f"in a random order {area['random']:.2f}"
        )
        if self.delete_chance > CHANCE:
            return f"The order of {self.what} is no better than chance: {numbers}."
        return f"The order of {self.what} is better than chance: {numbers}."


def curves(
    reader: GraphReader,
    nodes: np.ndarray,
    edges: np.ndarray,
    scene: int,
    contributions: np.ndarray,
    *,
    seed: int = 0,
) -> Curves:
    """Curves of a scene for contributions of events (n,) or of all edges (n, n), i to i too."""
    what = "events" if contributions.ndim == 1 else "edges"
    flat = contributions.ravel()
    rng = np.random.default_rng(seed)
    best = np.argsort(-flat, kind="stable")
    orders = [best, best[::-1], *(rng.permutation(flat.size) for _ in range(RANDOM_ORDERS))]
    # The place of each part in each order: (orders, parts).
    rank = np.argsort(np.stack(orders), axis=1)
    counts = np.unique(np.linspace(0, flat.size, min(POINTS, flat.size + 1)).round().astype(int))
    first = rank[:, None, :] < counts[:, None]  # (orders, P, parts): among the first so many
    rows = np.concatenate([~first, first]).reshape(-1, flat.size)
    if what == "events":
        masks = without_events(~rows)
    else:
        masks = np.ones((len(rows), len(nodes)), bool), rows.reshape(-1, *contributions.shape)
    log_odds = np.asarray(scene_log_odds(reader.read(nodes, edges, *masks), scene))
    delete, insert = log_odds.reshape(2, len(orders), len(counts))
    shares = counts / flat.size

    def named(each: np.ndarray) -> dict[str, np.ndarray]:
        return {"explanation": each[0], "random": each[2:].mean(axis=0), "reverse": each[1]}

    def chance(each: np.ndarray, sign: int) -> float:
        areas = sign * np.array([_area(shares, curve) for curve in each])
        return float((1 + (areas[2:] >= areas[0]).sum()) / (1 + RANDOM_ORDERS))

    return Curves(what, shares, named(delete), named(insert), chance(delete, -1), chance(insert, 1))


def _area(shares: np.ndarray, curve: np.ndarray) -> float:
    return float(np.trapezoid(curve, shares))


@dataclasses.dataclass(frozen=True)
class Counterfactual:
    """A smallest set of events without which the scene would be another.

    Attributes:
      events: their indices.
      scene: the index of the scene without them.
      smallest: whether every smaller set was tried; else events were removed one after another,
        each time the one that lowers the scene most.
    """

    events: tuple[int, ...]
    scene: int
    smallest: bool


def counterfactual(
    reader: GraphReader, nodes: np.ndarray, edges: np.ndarray, scene: int
) -> Counterfactual | None:
    """The Counterfactual of a graph's scene; None where no removal that was tried changes it.

    Of sets that are equally small, the one that lowers the scene's log-odds most.
    """
    n, size = len(nodes), 0

    def outcome(sets: list[tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray]:
        removed = np.zeros((len(sets), n), bool)
        for row, chosen in zip(removed, sets, strict=True):
            row[list(chosen)] = True
        logits = reader.read(nodes, edges, *without_events(removed))
        return logits.argmax(axis=1), np.asarray(scene_log_odds(logits, scene))

    while size < n and math.comb(n, size + 1) <= EXHAUSTIVE:
        size += 1
        sets = list(itertools.combinations(range(n), size))
        scenes, log_odds = outcome(sets)
        if (scenes != scene).any():
            best = np.where(scenes != scene, log_odds, np.inf).argmin()
            return Counterfactual(sets[best], int(scenes[best]), smallest=True)
    chosen = sets[log_odds.argmin()] if size else ()
    while len(chosen) < n:
        sets = [(*chosen, event) for event in range(n) if event not in chosen]
        scenes, log_odds = outcome(sets)
        best = log_odds.argmin()
        chosen = sets[best]
        if scenes[best] != scene:
            return Counterfactual(chosen, int(scenes[best]), smallest=False)
    return None
