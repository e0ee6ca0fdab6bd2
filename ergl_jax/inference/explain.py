"""Why a recording is called what it is: its graph, and what each event and relation adds.

The relation from event j to event i is edges[i, j]: i receives, j sends (§2.2, §2.3).
Shapes: n events, C channels, T tokens, F frames, M mel bins, L samples.
"""

import dataclasses
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ergl_jax import audio
from ergl_jax.errors import InputError
from ergl_jax.inference import fidelity
from ergl_jax.inference.classify import Classification, Model, waveform_blocks
from ergl_jax.inference.graph import GraphReader, scene_log_odds
from ergl_jax.models.ergl import ERGL

METHODS = ("gradient", "integrated")


def integration_steps(method: str) -> int:
    """The `steps` of `GraphReader.contributions` that one of METHODS takes."""
    return 32 if method == "integrated" else 0


@dataclasses.dataclass(frozen=True)
class Opened:
    """What the model computed of one window, numpy arrays."""

    log_mel: np.ndarray  # (F, M), dB
    event_probabilities: np.ndarray  # (n,)
    event_times: np.ndarray  # (n, T), the same classifier on each token
    nodes: np.ndarray  # v_i: (n, C)
    edges: np.ndarray  # e_ij by MEL: (n, n, C)
    scene_logits: np.ndarray  # (scenes,), temperature applied


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Why the model names the scene of one window of a recording.

    Attributes:
      classification: of the whole recording.
      window: its index in `classification.timeline`.
      waveform: (L,), the window at `sample_rate` Hz.
      scenes, events: names, in the order of the arrays below.
      scene, runner_up: indices of the window's most probable scene and of the next.
      opened: all that the model computed of the window.
      method: one of METHODS.
      node_contributions: (n,), what each event adds to the scene's log-odds, in nats.
      edge_contributions: (n, n), likewise of each relation, [i, j] from j to i.
      event_curves, edge_curves: how far these can be trusted.
      counterfactual: the smallest set of events whose removal changes the scene, if any does.
      scene_without_edges: the index of the scene when all relations are removed.
      log_odds, log_odds_without_edges: of `scene`, in nats, with all relations and without any.
    """

    classification: Classification
    window: int
    waveform: np.ndarray
    sample_rate: int
    scenes: tuple[str, ...]
    events: tuple[str, ...]
    scene: int
    runner_up: int
    opened: Opened
    method: str
    node_contributions: np.ndarray
    edge_contributions: np.ndarray
    event_curves: fidelity.Curves
    edge_curves: fidelity.Curves
    counterfactual: fidelity.Counterfactual | None
    scene_without_edges: int
    log_odds: float
    log_odds_without_edges: float

    @property
    def probability(self) -> float:
        """Of the window's scene, calibrated."""
        return float(1 / (1 + np.exp(-self.log_odds)))

    @property
    def edge_means(self) -> np.ndarray:
        """(n, n): each edge's mean over its channels, as the authors' pictures show it."""
        return self.opened.edges.mean(axis=-1)

    def relations(self) -> list[tuple[int, int]]:
        """Pairs (receiver i, sender j) of two different events, the largest contribution first."""
        order = np.argsort(-np.abs(self.edge_contributions), axis=None, kind="stable")
        pairs = zip(*np.unravel_index(order, self.edge_contributions.shape), strict=True)
        return [(int(i), int(j)) for i, j in pairs if i != j]

    def to_dict(self) -> dict[str, Any]:
        """All numbers but audio and spectrogram, as dicts, lists and strings, for JSON."""
        window = self.classification.timeline[self.window]
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
                    self.events,
                    self.opened.event_probabilities,
                    self.node_contributions,
                    strict=True,
                )
            ],
            "relations": [
                {
                    "from": self.events[j],
                    "to": self.events[i],
                    "contribution": float(self.edge_contributions[i, j]),
                    "mean_edge": float(self.edge_means[i, j]),
                }
                for i, j in self.relations()
            ],
            "event_times": self.opened.event_times.tolist(),
            "edge_means": self.edge_means.tolist(),
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
                    "sentence": curves.sentence,
                }
                for curves in (self.event_curves, self.edge_curves)
            },
            "counterfactual": self.counterfactual
            and {
                "without": [self.events[i] for i in self.counterfactual.events],
                "scene": self.scenes[self.counterfactual.scene],
                "smallest": self.counterfactual.smallest,
            },
        }


class Explainer:
    """Explains what a model says of recordings; its programs are compiled once.

    Raises InputError for a model that is no ERGL.
    """

    def __init__(self, model: Model):
        if not isinstance(model.module, ERGL):
            raise InputError(
                f"the bundle's model is {model.bundle.model.name!r}, which has no graph to "
                "explain: take the bundle of an ERGL"
            )
        if len(model.bundle.scenes) < 2:
            raise InputError("the bundle knows a single scene: there is nothing to explain")
        if not model.bundle.front_end.is_spectrogram:
            raise InputError(
                f"the bundle's front end is {model.bundle.front_end.name!r}, whose features are no "
                "mel spectrogram along time, which explanations show: train an ERGL on another"
            )
        self.model = model
        head = {name: tree["head"] for name, tree in model.variables.items()}
        readout = model.module.make_readout()

        def read(nodes, edges):
            logits, *_ = readout.apply(head, nodes, edges, train=False)
            return logits / model.bundle.temperature

        self.reader = GraphReader(read)

    def __call__(
        self,
        recording: str | os.PathLike | np.ndarray,
        *,
        sample_rate: int | None = None,
        method: str = "gradient",
    ) -> Explanation:
        """Explains the window of a recording that speaks most for the recording's scene.

        Args:
          recording, sample_rate: as of `Model.classify`.
          method: "gradient" times input, or "integrated" gradients; see
            `GraphReader.contributions`.
        """
        if method not in METHODS:
            raise InputError(f"method={method!r} is not one of: {', '.join(METHODS)}")
        if isinstance(recording, list | tuple):
            raise InputError("one recording is explained at a time, not a list")
        classification = self.model.classify(recording, sample_rate=sample_rate)
        timeline = classification.timeline
        index = max(range(len(timeline)), key=lambda k: timeline[k].scenes[classification.scene])
        waveform = self._window(recording, sample_rate, index)
        opened = self.open(waveform)
        return self.explain(opened, classification, index, waveform, method)

    def explain(self, opened, classification, index, waveform, method) -> Explanation:
        """The Explanation of a window that is open already."""
        runner_up, scene = (int(k) for k in np.argsort(opened.scene_logits, kind="stable")[-2:])
        nodes, edges = opened.nodes, opened.edges
        contributions = self.reader.contributions(
            nodes, edges, scene, steps=integration_steps(method)
        )
        n = len(nodes)
        bare = self.reader.read(nodes, edges, np.ones((1, n)), np.zeros((1, n, n)))
        event_curves, edge_curves = (
            fidelity.curves(self.reader, nodes, edges, scene, each) for each in contributions
        )
        bundle = self.model.bundle
        return Explanation(
            classification=classification,
            window=index,
            waveform=waveform,
            sample_rate=bundle.front_end.sample_rate,
            scenes=bundle.scenes,
            events=bundle.events,
            scene=scene,
            runner_up=runner_up,
            opened=opened,
            method=method,
            node_contributions=contributions[0],
            edge_contributions=contributions[1],
            event_curves=event_curves,
            edge_curves=edge_curves,
            counterfactual=fidelity.counterfactual(self.reader, nodes, edges, scene),
            scene_without_edges=int(bare[0].argmax()),
            log_odds=float(scene_log_odds(opened.scene_logits, scene)),
            log_odds_without_edges=float(scene_log_odds(bare[0], scene)),
        )

    def open(self, waveform: np.ndarray) -> Opened:
        """What the model computes of a window (L,) at the bundle's rate and clip length."""
        return self.open_log_mel(audio.log_mel(waveform[None], self.model.bundle.front_end)[0])

    def open_log_mel(self, log_mel: np.ndarray) -> Opened:
        """The same from its log-mel spectrogram (F, M)."""
        found = jax.device_get(self._opened(self.model.variables, log_mel[None]))
        return Opened(np.asarray(log_mel), **{name: x[0] for name, x in found.items()})

    @functools.cached_property
    def _opened(self):
        @jax.jit
        def run(variables, log_mel):
            output = self.model.module.apply(variables, log_mel, train=False)
            classifier = variables["params"]["head"]["event_classifier"]
            times = jnp.einsum("bntc,nc->bnt", output.graph.tokens, classifier["kernel"])
            return {
                "event_probabilities": nn.sigmoid(output.event_logits),
                "event_times": nn.sigmoid(times + classifier["bias"][:, None]),
                "nodes": output.graph.nodes_in,
                "edges": output.graph.edges_in,
                "scene_logits": output.scene_logits / self.model.bundle.temperature,
            }

        return run

    def _window(self, recording, sample_rate, index: int) -> np.ndarray:
        """(L,): reads the recording again, as it was too long to be kept."""
        bundle = self.model.bundle
        blocks = waveform_blocks(recording, sample_rate, bundle.front_end)
        length = bundle.front_end.num_samples(bundle.clip_seconds)
        for number, (_, window) in enumerate(audio.segment(blocks, length, pad=bundle.pad)):
            if number == index:
                return window
        raise InputError(f"{recording} has changed while it was read")
