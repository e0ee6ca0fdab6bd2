"""Explains a prediction: the event graph, and what each event and relation contributes.

Shapes: n events, F frames, M mel bins, L samples.
"""

import itertools
import os
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from ergl_jax import audio
from ergl_jax.errors import InputError
from ergl_jax.inference import fidelity
from ergl_jax.inference.classify import Model
from ergl_jax.inference.contributions import GraphReader, scene_log_odds
from ergl_jax.inference.explanation import Activations, Explanation
from ergl_jax.inference.windows import waveform_blocks
from ergl_jax.models.dynamic import LAGS, DynamicEventGraph
from ergl_jax.models.ergl import ERGL

GRAPHS = ERGL | DynamicEventGraph  # models that have one
METHODS = {"gradient": 0, "integrated": 32}  # `steps` of GraphReader.contributions


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
                f"{front_end.name!r}, {len(bundle.scenes)} scene(s): train one with event labels, "
                "or by `ergl train --set model.name=ergl`, for which the classes are the events"
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
