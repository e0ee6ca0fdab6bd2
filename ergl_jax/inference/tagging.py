"""Tags recordings: which events are in them, and when.

Shapes: B windows of a batch, L samples, S encoder frames of a window, n events.
"""

import functools
import os
from collections.abc import Iterable, Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from ergl_jax import audio
from ergl_jax.errors import InputError
from ergl_jax.inference.activity import Activity, join, step_seconds
from ergl_jax.inference.classify import Model
from ergl_jax.inference.results import TaggedWindow, Tags, ranked
from ergl_jax.inference.windows import Pending, in_batches, run_windows


class Tagger:
    """Predicts events of recordings; compiled once, for windows of the bundle's clip length.

    Attributes:
      step: seconds of a step of `Activity`.

    Raises InputError for a model that predicts no events.
    """

    def __init__(self, model: Model):
        self.bundle = bundle = model.bundle
        module, front_end, clip_seconds = model.module, bundle.front_end, bundle.clip_seconds

        @jax.jit
        def run(variables, waveforms):
            """(B, L) -> event probabilities of windows, (B, n), and over time, (B, S, n)."""
            output: Any = module.apply(variables, audio.log_mel(waveforms, front_end), train=False)
            if output.event_logits is None:
                raise InputError(
                    f"the bundle's model, {bundle.model.name!r}, predicts no events: tag "
                    "recordings with an ERGL or a ported PANN (data_prep/port_panns.py)"
                )
            over_time = output.event_logits_by_frame
            if over_time is None:
                over_time = output.event_logits[:, None]
            return nn.sigmoid(output.event_logits), nn.sigmoid(over_time)

        self._run = functools.partial(in_batches, run, model.variables)
        window = jax.ShapeDtypeStruct((1, front_end.num_samples(clip_seconds)), np.float32)
        steps = jax.eval_shape(run, model.variables, window)[1].shape[1]
        self.step = clip_seconds / steps
        if front_end.is_spectrogram and steps > 1:
            self.step = step_seconds(front_end, front_end.num_frames(clip_seconds), steps)

    def __call__(
        self,
        recordings: str | os.PathLike | Iterable,
        sample_rate: float | None = None,
        channel: str | None = None,
    ) -> Iterator[tuple[Any, Tags | InputError]]:
        """Yields each recording with its Tags, or with the error raised for it."""
        for pending in run_windows(recordings, sample_rate, channel, self.bundle, self._run):
            yield pending.recording, pending.error or self._tags(pending)

    def _tags(self, pending: Pending) -> Tags:
        bundle = self.bundle
        starts, events, times = zip(*pending.outputs, strict=True)
        seconds = pending.length / bundle.front_end.sample_rate
        return Tags(
            start=0.0,
            stop=seconds,
            events=ranked(bundle.events, pending.mean(events)),
            name=pending.name,
            maxima=ranked(bundle.events, np.array(events)[pending.used].max(axis=0)),
            timeline=tuple(
                TaggedWindow(
                    start,
                    min(start + bundle.clip_seconds, seconds),
                    ranked(bundle.events, event),
                    silent=silent,
                )
                for start, event, silent in zip(starts, events, pending.silent, strict=True)
            ),
            activity=self._activity(starts, times, pending.used, seconds),
            notes=(*pending.notes, *pending.filled(bundle)),
        )

    def _activity(self, starts, times, used, seconds: float) -> Activity:
        windows = [
            (start, start + self.bundle.clip_seconds, p if counts else np.full_like(p, np.nan))
            for start, p, counts in zip(starts, times, used, strict=True)
        ]
        return join(self.bundle.events, windows, self.step, seconds)
