"""Explains a prediction: the event graph, and what each event and relation contributes.

edges[i, j] is the relation from event j to event i: i receives, j sends (§2.2, §2.3).
Shapes: n events, C channels, T tokens, F frames, M mel bins, L samples.
"""

import dataclasses
import functools
import itertools
import os
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from ergl_jax import audio
from ergl_jax.errors import InputError
from ergl_jax.inference import fidelity
from ergl_jax.inference.classify import Classification, Model
from ergl_jax.inference.contributions import GraphReader, scene_log_odds
from ergl_jax.inference.relations import Relation, related_pairs, strongest
from ergl_jax.inference.windows import waveform_blocks
from ergl_jax.models.dynamic import LAGS, DynamicEventGraph
from ergl_jax.models.ergl import ERGL

GRAPHS = ERGL | DynamicEventGraph  # models that have one
METHODS = {"gradient": 0, "integrated": 32}  # `steps` of GraphReader.contributions


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
        probabilities = self.activations.event_probabilities
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
                {"event": name, "probability": float(p), "contribution": float(c)}
                for name, p, c in zip(
                    self.events, probabilities, self.node_contributions, strict=True
                )
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


class Explainer:
    """Explains a model's predictions; compiled once.

    Raises InputError unless the model has a graph (models.ergl, models.dynamic), two scenes or more
    and a mel spectrogram.
    """

    def __init__(self, model: Model):
        bundle, front_end = model.bundle, model.bundle.front_end
        module: Any = model.module
        fits = isinstance(module, GRAPHS) and front_end.is_spectrogram
        if not fits or len(bundle.scenes) < 2:
            raise InputError(
                "explanations need an ERGL or a dynamic event graph with two scenes or more and a "
                f"mel spectrogram; this one has model {bundle.model.name!r}, front end "
                f"{front_end.name!r}, {len(bundle.scenes)} scene(s)"
            )
        self.model = model

        def read(nodes, edges):
            logits = module.apply(model.variables, nodes, edges, method="read")
            return logits / bundle.temperature

        self.reader = GraphReader(read)
        self.lags = LAGS if isinstance(module, DynamicEventGraph) else ()

        @jax.jit
        def compute(variables, log_mel):
            output: Any = module.apply(variables, log_mel, train=False)
            return {
                "event_probabilities": nn.sigmoid(output.event_logits),
                "event_times": nn.sigmoid(output.event_logits_by_frame).swapaxes(1, 2),
                "nodes": output.graph.nodes_in,
                "edges": output.graph.edges_in,
                "scene_logits": output.scene_logits / bundle.temperature,
            }

        self._compute = compute

    def __call__(
        self,
        recording: str | os.PathLike | np.ndarray,
        *,
        sample_rate: float | None = None,
        channel: str | None = None,
        method: str = "gradient",
    ) -> Explanation:
        """Explains the window in which the recording's scene is most probable: `Model.explain`."""
        if method not in METHODS:
            raise ValueError(f"method={method!r} is not one of: {', '.join(METHODS)}")
        classified: Any = self.model.classify([recording], sample_rate=sample_rate, channel=channel)
        classification = classified[0]
        timeline = classification.timeline
        scene = classification.scene
        index = max(
            range(len(timeline)), key=lambda k: (not timeline[k].silent, timeline[k].scenes[scene])
        )
        waveform = self._window(recording, sample_rate, channel, index)
        bundle = self.model.bundle
        activations = self.activations(audio.log_mel(waveform[None], bundle.front_end)[0])
        nodes, edges = activations.nodes, activations.edges
        runner_up, scene = (
            int(k) for k in np.argsort(activations.scene_logits, kind="stable")[-2:]
        )
        terms = self.reader.terms(nodes, edges, scene, steps=METHODS[method])
        contributions = tuple(each.sum(-1) for each in terms)
        event_curves, edge_curves = (
            fidelity.curves(self.reader, nodes, edges, scene, each) for each in contributions
        )
        n = len(nodes)
        without_edges = self.reader.read(nodes, edges, np.ones((1, n)), np.zeros((1, n, n)))[0]
        return Explanation(
            classification=classification,
            window=index,
            waveform=waveform,
            sample_rate=bundle.front_end.sample_rate,
            scenes=bundle.scenes,
            events=bundle.events,
            scene=scene,
            runner_up=runner_up,
            activations=activations,
            method=method,
            node_contributions=contributions[0],
            edge_contributions=contributions[1],
            event_curves=event_curves,
            edge_curves=edge_curves,
            counterfactual=fidelity.counterfactual(self.reader, nodes, edges, scene),
            scene_without_edges=int(without_edges.argmax()),
            log_odds=float(scene_log_odds(activations.scene_logits, scene)),
            log_odds_without_edges=float(scene_log_odds(without_edges, scene)),
            lag_contributions=terms[1] if activations.lags else None,
        )

    def activations(self, log_mel: np.ndarray) -> Activations:
        """What the model computes of a log-mel spectrogram (F, M) of the bundle's clip length."""
        computed = jax.device_get(self._compute(self.model.variables, log_mel[None]))
        arrays = {name: x[0] for name, x in computed.items()}
        return Activations(np.asarray(log_mel), **arrays, lags=self.lags)

    def _window(
        self, recording, sample_rate: float | None, channel: str | None, index: int
    ) -> np.ndarray:
        """(L,): reads the recording again, since classifying a long one doesn't keep its audio."""
        bundle = self.model.bundle
        blocks = waveform_blocks(recording, sample_rate, bundle.front_end.with_channel(channel))
        length = bundle.front_end.num_samples(bundle.clip_seconds)
        windows = itertools.islice(audio.segment(blocks, length, pad=bundle.pad), index, None)
        for _, window in windows:
            return window
        raise InputError(f"{recording} changed while it was read: run again")
