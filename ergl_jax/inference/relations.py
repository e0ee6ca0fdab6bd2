"""How two events are related in time, by the edges of the dynamic event graph.

Edge (i, j) of that model holds correlations e_ij(τ), at lags τ of 0 s and more: "event i sounds τ
after event j" (models/dynamic.py). Negative lags are those of edge (j, i), so that two events have
one curve over all lags.

Shapes: n events, K lags of an edge.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

MIN_CORRELATION = 0.1  # of a relation that is clear
MIN_AT_LAG = 0.2  # at other lags than 0: in a short clip the largest of many is often 0.1 by chance
NEARLY = 0.6  # of the largest correlation: from here on lag 0 describes the relation


class Relation(NamedTuple):
    """Two events, and when one sounds relative to the other.

    Attributes:
      events: (i, j), indices.
      lags: (2K - 1,), in seconds, evenly spaced around 0: by which i sounds after j.
      correlations: (2K - 1,), of the activities at these lags.
      contribution: of edges (i, j) and (j, i), in nats.
      by_lag: (2K - 1,), what each lag adds to it; None where that is not known, as of a mean.
    """

    events: tuple[int, int]
    lags: np.ndarray
    correlations: np.ndarray
    contribution: float
    by_lag: np.ndarray | None = None

    @property
    def correlation(self) -> float:
        """At the lag that describes the relation, `peak`."""
        return float(self.correlations[self.peak])

    @property
    def lag(self) -> float:
        """The lag that describes the relation, in seconds.

        At a local maximum it is interpolated between the model's lags, by a parabola through the
        maximum and its neighbours.
        """
        k, (step, size) = self.peak, (self.lags[1] - self.lags[0], abs(self.correlations))
        if self.is_simultaneous or k in (0, len(size) - 1):
            return float(self.lags[k])
        # Neighbours of the other sign count as their negatives.
        before, top, after = np.sign(self.correlations[k]) * self.correlations[k - 1 : k + 2]
        if top <= max(before, after):
            return float(self.lags[k])
        return float(self.lags[k] + step * (before - after) / (before - 2 * top + after) / 2)

    @property
    def is_simultaneous(self) -> bool:
        """Whether the correlation without a lag describes the relation."""
        return self.peak == len(self.lags) // 2

    @property
    def is_clear(self) -> bool:
        """Whether the correlation that describes the relation reaches MIN_CORRELATION."""
        return abs(self.correlation) >= MIN_CORRELATION

    @property
    def peak(self) -> int:
        """The index of the lag with the correlation of largest magnitude, or of lag 0.

        Lag 0 if its magnitude is at least NEARLY times the largest, if the largest is below
        MIN_AT_LAG, or if the events alternate: then lag 0 is negative, and each event follows the
        other by half a period.
        """
        # Of equal magnitudes the smallest lag wins; rounding removes differences by rounding error.
        c, middle = self.correlations.round(6), len(self.lags) // 2
        top = int(np.lexsort((np.abs(self.lags), -np.abs(c)))[0])
        nearly = NEARLY * abs(c[top])
        alternate = c[middle] <= -MIN_CORRELATION and min(c[top], c[-1 - top]) >= nearly
        lagged = abs(c[top]) >= MIN_AT_LAG and abs(c[middle]) < nearly
        return top if lagged and not alternate else middle

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """For JSON; `names` are those of all events."""
        return {
            "events": [names[i] for i in self.events],
            "contribution": self.contribution,
            "correlation": self.correlation,
            "lag": self.lag,
            "lags": self.lags.tolist(),
            "correlations": self.correlations.tolist(),
            "contributions": None if self.by_lag is None else self.by_lag.tolist(),
        }


def related_pairs(
    edges: np.ndarray,
    contributions: np.ndarray,
    lags: Sequence[float],
    by_lag: np.ndarray | None = None,
) -> list[Relation]:
    """The Relations (i < j) that contribute, largest absolute contribution first.

    Args:
      edges: (n, n, K), [i, j, k]: event i sounds `lags[k]` after event j.
      contributions: (n, n), of the edges, in nats.
      lags: (K,), in seconds, evenly spaced from 0.
      by_lag: (n, n, K), what each lag adds to a contribution.
    """
    both = contributions + contributions.T
    pairs = [(int(i), int(j)) for i, j in np.argwhere(np.triu(both, 1))]
    found = [relation(edges, pair, float(both[pair]), lags, by_lag) for pair in pairs]
    return sorted(found, key=lambda each: -abs(each.contribution))


def relation(
    edges: np.ndarray,
    events: tuple[int, int],
    contribution: float,
    lags: Sequence[float],
    by_lag: np.ndarray | None = None,
) -> Relation:
    """The Relation of two different events; arguments as of `related_pairs`."""
    i, j = events
    seconds = np.asarray(lags)

    def curve(x: np.ndarray) -> np.ndarray:
        return np.concatenate([x[j, i, :0:-1], x[i, j]])

    terms = None
    if by_lag is not None:
        terms = curve(by_lag)
        terms[len(seconds) - 1] += by_lag[j, i, 0]
    return Relation(
        events,
        np.concatenate([-seconds[:0:-1], seconds]),
        curve(edges),
        contribution,
        terms,
    )


def strongest(edges: np.ndarray) -> np.ndarray:
    """(n, n, K) -> (n, n): of each edge the correlation of largest magnitude."""
    index = np.abs(edges).argmax(axis=-1)
    return np.take_along_axis(edges, index[..., None], axis=-1)[..., 0]
