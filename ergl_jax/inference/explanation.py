"""An explanation of a prediction, as numbers: what the model computes, and what contributes.

edges[i, j] is the relation from event j to event i: i receives, j sends (§2.2, §2.3).
Shapes: n events, C channels, T tokens, F frames, M mel bins, L samples.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from ergl_jax.inference import fidelity
from ergl_jax.inference.classify import Classification
from ergl_jax.inference.relations import Relation, related_pairs, strongest


@dataclasses.dataclass(frozen=True)
class Activations:
    """What the model computes of one window, as NumPy arrays.

    Attributes:
      log_mel: (F, M), dB.
      event_probabilities: (n,).
      event_times: (n, T), the event classifier on each token, or p_i(t).
      nodes: v_i, (n, C).
      edges: e_ij, (n, n, C): [i, j] is the relation from event j to event i.
      scene_logits: (scenes,), divided by the bundle's temperature.
      lags: (C,), in seconds, of the dynamic event graph, whose edges are correlations at these
        lags; () for ERGL, whose channels have no such meaning.
    """

    log_mel: np.ndarray
    event_probabilities: np.ndarray
    event_times: np.ndarray
    nodes: np.ndarray
    edges: np.ndarray
    scene_logits: np.ndarray
    lags: tuple[float, ...] = ()

    @property
    def presence(self) -> np.ndarray:
        """(n,), 0 to 1: whether each event sounds in the window.

        Its probability; with lags m_i, since the model's event output may be a share of the time.
        """
        return self.nodes[:, 1] if self.lags else np.clip(self.event_probabilities, 0, 1)

    @functools.cached_property
    def edge_strengths(self) -> np.ndarray:
        """(n, n): each edge in one number.

        The mean over its channels, as in the paper's figures; with lags its correlation of largest
        magnitude.
        """
        return strongest(self.edges) if self.lags else self.edges.mean(axis=-1)

    @property
    def edge_lags(self) -> np.ndarray:
        """(n, n), in seconds: the lag of the correlation in `edge_strengths`."""
        return np.array(self.lags)[np.abs(self.edges).argmax(axis=-1)]


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Why the model predicts the scene of one window of a recording.

    Attributes:
      classification: of the whole recording.
      window: index in `classification.timeline`.
      waveform: (L,), of the window.
      sample_rate: in Hz.
      scenes: names, in the order of all arrays.
      events: names, in the order of all arrays.
      scene: index of the window's most probable scene.
      runner_up: index of the second.
      activations: what the model computes of the window.
      method: "gradient" or "integrated".
      node_contributions: (n,), of events to the scene's log-odds, in nats.
      edge_contributions: (n, n), of relations: [i, j] is the one from event j to event i.
      event_curves: log-odds while events are deleted and inserted.
      edge_curves: the same of edges.
      counterfactual: events whose removal changes the scene; None if none were found.
      scene_without_edges: index of the scene without relations.
      log_odds: of `scene`, in nats.
      log_odds_without_edges: of `scene` without relations.
      lag_contributions: (n, n, K), what each lag of `edge_contributions` adds, of the dynamic event
        graph.
    """

    classification: Classification
    window: int
    waveform: np.ndarray
    sample_rate: int
    scenes: tuple[str, ...]
    events: tuple[str, ...]
    scene: int
    runner_up: int
    activations: Activations
    method: str
    node_contributions: np.ndarray
    edge_contributions: np.ndarray
    event_curves: fidelity.Curves
    edge_curves: fidelity.Curves
    counterfactual: fidelity.Counterfactual | None
    scene_without_edges: int
    log_odds: float
    log_odds_without_edges: float
    lag_contributions: np.ndarray | None = None

    @property
    def probability(self) -> float:
        """Of the window's scene."""
        return float(1 / (1 + np.exp(-self.log_odds)))

    @property
    def sound(self) -> np.ndarray:
        """(l,): the window's samples without what fills a shorter recording."""
        window = self.classification.timeline[self.window]
        return self.waveform[: round((window.stop - window.start) * self.sample_rate)]

    @property
    def lags(self) -> tuple[float, ...]:
        """As of `Activations`: () unless the model is the dynamic event graph."""
        return self.activations.lags

    @property
    def is_exact(self) -> bool:
        """Whether contributions add up: terms of a sum, not approximations of effects."""
        return bool(self.lags) and self.method == "gradient"

    def relations(self) -> list[tuple[int, int]]:
        """Pairs (receiver i, sender j) of different events that contribute, by absolute value."""
        contributions = self.edge_contributions
        order = np.argsort(-np.abs(contributions), axis=None, kind="stable")
        pairs = zip(*np.unravel_index(order, contributions.shape), strict=True)
        return [(int(i), int(j)) for i, j in pairs if i != j and contributions[i, j]]

    def pairs(self) -> list[Relation]:
        """With lags: both directions of two events as one, by absolute contribution."""
        edges, contributions = self.activations.edges, self.edge_contributions
        by_lag = self.lag_contributions
        return related_pairs(edges, contributions, self.lags, by_lag) if self.lags else []

    def event_numbers(self, i: int) -> dict[str, float]:
        """Of an event, by name: as in JSON and GraphML."""
        a, contribution = self.activations, {"contribution": float(self.node_contributions[i])}
        if not self.lags:
            return {"probability": float(a.event_probabilities[i])} | contribution
        return {"share": float(a.nodes[i, 0]), "presence": float(a.presence[i])} | contribution

    def edge_numbers(self, i: int, j: int) -> dict[str, float]:
        """Of the edge from event j to event i, by name: as in JSON and GraphML."""
        contribution = float(self.edge_contributions[i, j])
        strength = float(self.activations.edge_strengths[i, j])
        if not self.lags:
            return {"contribution": contribution, "mean_edge": strength}
        lag = self.lags[np.abs(self.activations.edges[i, j]).argmax()]
        return {"contribution": contribution, "correlation": strength, "lag": lag}

    def to_dict(self) -> dict[str, Any]:
        """For JSON: everything but audio, spectrogram, nodes and ERGL's edge channels."""
        window = self.classification.timeline[self.window]
        removal = self.counterfactual
        strengths: dict[str, Any] = {"edge_means": self.activations.edge_strengths.tolist()}
        if self.lags:
            strengths = {
                "edge_correlations": self.activations.edge_strengths.tolist(),
                "edge_lags": self.activations.edge_lags.tolist(),
                "pairs": [each.to_dict(self.events) for each in self.pairs()],
            }
        return {
            "classification": self.classification.to_dict(),
            "window": {"start": window.start, "stop": window.stop},
            "scene": self.scenes[self.scene],
            "runner_up": self.scenes[self.runner_up],
            "probability": self.probability,
            "log_odds": self.log_odds,
            "method": self.method,
            "events": [
                {"event": name, **self.event_numbers(i)} for i, name in enumerate(self.events)
            ],
            "relations": [
                {"from": self.events[j], "to": self.events[i], **self.edge_numbers(i, j)}
                for i, j in self.relations()
            ],
            "event_times": self.activations.event_times.tolist(),
            **strengths,
            "edge_contributions": self.edge_contributions.tolist(),
            "without_relations": {
                "scene": self.scenes[self.scene_without_edges],
                "log_odds": self.log_odds_without_edges,
            },
            "fidelity": {
                curves.what: {
                    "areas": curves.areas,
                    "delete_chance": curves.delete_chance,
                    "insert_chance": curves.insert_chance,
                    "better_than_chance": curves.is_better_than_chance,
                }
                for curves in (self.event_curves, self.edge_curves)
            },
            "counterfactual": removal
            and {
                "without": [self.events[i] for i in removal.events],
                "scene": self.scenes[removal.scene],
                "smallest": removal.smallest,
            },
        }
