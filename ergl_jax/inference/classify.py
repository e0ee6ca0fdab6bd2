"""Classifies recordings with a trained model.

Shapes: L samples, W windows of a recording, B windows of a batch, n events.
"""

import collections
import dataclasses
import itertools
import math
import numbers
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from scipy.special import softmax

from ergl_jax import audio
from ergl_jax import bundle as bundles
from ergl_jax.bundle import Bundle
from ergl_jax.errors import InputError

BATCH_SIZE = 8
SILENCE = 1e-5  # a peak below -100 dB of full scale
MAX_SAMPLE_RATE = 10_000_000  # Hz; above, the resampler takes forever


@dataclasses.dataclass(frozen=True)
class Window:
    """The prediction for one stretch of a recording.

    Attributes:
      start, stop: in seconds; `stop` is the recording's end where that comes first.
      scenes: probability of each scene, the most probable first; calibrated if the bundle's
        temperature was fitted.
      events: probability of each event, the most probable first.
    """

    start: float
    stop: float
    scenes: Mapping[str, float]
    events: Mapping[str, float]

    @property
    def scene(self) -> str:
        """The most probable scene."""
        return next(iter(self.scenes))

    @property
    def probability(self) -> float:
        """Of the most probable scene."""
        return self.scenes[self.scene]


@dataclasses.dataclass(frozen=True)
class Classification(Window):
    """The prediction for a whole recording: the mean over its windows.

    Attributes:
      name: its path, or "" for samples.
      timeline: its windows, in order.
      notes: warnings about the recording, a sentence each.
    """

    name: str
    timeline: tuple[Window, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"scene": self.scene, "probability": self.probability} | dataclasses.asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.name or 'recording'}, {self.stop:.1f} s"]
        lines += [f"  {100 * p:5.1f} %  {scene}" for scene, p in list(self.scenes.items())[:3]]
        if self.events:
            events = [f"{event} {p:.2f}" for event, p in list(self.events.items())[:5]]
            lines += [f"  events: {', '.join(events)}"]
        if len(self.timeline) > 1:
            lines += [
                f"  {window.start:7.1f} to {window.stop:.1f} s  {window.scene} "
                f"({100 * window.probability:.0f} %)"
                for window in self.timeline
            ]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def load(directory: str | os.PathLike) -> "Model":
    """The model in a bundle's directory; InputError if it can't be used (`bundle.load`)."""
    return Model(bundles.load(directory))  # type: ignore[arg-type]


class Model:
    """A bundle's model, compiled at first use for windows of the bundle's clip length.

    Attributes:
      bundle: the Bundle.
      module: its Flax module.
      variables: the module's variables, on the device.
    """

    def __init__(self, bundle: Bundle):
        if not bundle.scenes:
            raise InputError(
                "the bundle has no scenes, only events (a PANN): it can tag recordings but not "
                "classify them; use the bundle of a trained run, <workdir>/bundle"
            )
        self.bundle = bundle
        self.module = module = bundle.build()
        self.variables = jax.device_put(dict(bundle.variables))

        @jax.jit
        def run(variables, waveforms):
            log_mel = audio.log_mel(waveforms, bundle.front_end)
            output: Any = module.apply(variables, log_mel, train=False)
            events = output.event_logits
            if events is None:
                events = np.zeros((len(waveforms), 0), np.float32)
            return output.scene_logits / bundle.temperature, nn.sigmoid(events)

        self._run = run

    def classify(
        self, recordings: str | os.PathLike | np.ndarray | list, *, sample_rate: float | None = None
    ) -> Classification | list[Classification]:
        """Classifies a recording, or each recording of a list.

        A recording of any length is cut into windows of the bundle's clip length; its
        probabilities are the mean over them.

        Args:
          recordings: a file; or samples (L,) or (L, channels), floating point, full scale 1; or a
            list of these.
          sample_rate: of samples, in Hz.

        Raises:
          InputError: a file can't be read or isn't audio, or samples are not finite.
          ValueError: samples of another type or shape, or without a sample rate.
        """
        each: Any = recordings if isinstance(recordings, list | tuple) else [recordings]
        results = []
        for _, result in self.classify_each(each, sample_rate=sample_rate):
            if isinstance(result, InputError):
                raise result
            results.append(result)
        return results if each is recordings else results[0]

    def classify_each(
        self, recordings: Iterable, *, sample_rate: float | None = None
    ) -> Iterator[tuple[Any, Classification | InputError]]:
        """Yields each of `recordings` with its Classification, or with the error raised for it.

        In order, each as soon as it is ready. Windows of several recordings share a batch.
        """
        queue: collections.deque[_Pending] = collections.deque()
        windows = self._windows(recordings, sample_rate, queue)
        while True:
            if batch := list(itertools.islice(windows, BATCH_SIZE)):
                logits, events = self.outputs(np.stack([window for _, _, window in batch]))
                for (pending, start, _), *outputs in zip(
                    batch, softmax(logits, axis=1), events, strict=True
                ):
                    pending.outputs.append((start, *outputs))
            while queue and queue[0].is_ready:
                pending = queue.popleft()
                yield pending.recording, pending.error or _classification(pending, self.bundle)
            if not batch:
                return

    def _windows(
        self, recordings: Iterable, sample_rate: float | None, queue: "collections.deque[_Pending]"
    ) -> Iterator[tuple["_Pending", float, np.ndarray]]:
        """Yields (recording, start in seconds, (L,)) for each window; queues each recording."""
        front_end, pad = self.bundle.front_end, self.bundle.pad
        length = front_end.num_samples(self.bundle.clip_seconds)
        # Many files of five seconds have a millisecond more, which needs no window.
        min_rest = math.ceil(length / 100)
        for recording in recordings:
            pending = _Pending(recording)
            queue.append(pending)
            try:
                blocks = waveform_blocks(recording, sample_rate, front_end)
                blocks = pending.measured(blocks, front_end.sample_rate)
                for start, window in audio.segment(blocks, length, pad=pad, min_rest=min_rest):
                    pending.num_windows += 1
                    yield pending, start / front_end.sample_rate, window
                pending.is_decoded = True
            except InputError as error:
                pending.error = error

    def outputs(self, waveforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Runs the model on windows (B, L), B >= 1, at the bundle's sample rate and clip length.

        Returns:
          Scene logits (B, scenes) divided by the bundle's temperature, so that their softmax is
          calibrated, and event probabilities (B, n), n = 0 for a model without events.
        """
        batches = [waveforms[i : i + BATCH_SIZE] for i in range(0, len(waveforms), BATCH_SIZE)]
        missing = BATCH_SIZE - len(batches[-1])
        if missing < BATCH_SIZE // 2:
            batches[-1] = np.pad(batches[-1], ((0, missing), (0, 0)))
        else:  # one at a time: most recordings are a single window
            batches[-1:] = [waveform[None] for waveform in batches[-1]]
        outputs = [jax.device_get(self._run(self.variables, batch)) for batch in batches]
        logits, events = zip(*outputs, strict=True)
        return np.concatenate(logits)[: len(waveforms)], np.concatenate(events)[: len(waveforms)]


def waveform_blocks(
    recording: str | os.PathLike | np.ndarray, sample_rate: float | None, front_end: audio.FrontEnd
) -> Iterator[np.ndarray]:
    """A file or samples as mono blocks (l,) for a front end; see `Model.classify` for errors."""
    if isinstance(recording, str | os.PathLike):
        yield from audio.stream_audio(recording, front_end.sample_rate, front_end.channel)
        return
    if not isinstance(sample_rate, numbers.Real) or not 1 <= sample_rate <= MAX_SAMPLE_RATE:
        raise ValueError(
            f"sample_rate={sample_rate!r}: samples need their rate in Hz, 1 to {MAX_SAMPLE_RATE}: "
            "classify(samples, sample_rate=HZ)"
        )
    samples = np.asarray(recording)
    shape_fits = samples.ndim in (1, 2) and samples.size and samples.shape[-1] <= len(samples)
    if not shape_fits or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(
            f"samples are {samples.dtype} {samples.shape}: pass (L,) or (L, channels), not empty, "
            "floating point with full scale 1 (divide int16 by 32768)"
        )
    audio.check_samples(samples, "samples")
    waveform = audio.mono(samples.astype(np.float32).reshape(len(samples), -1), front_end.channel)
    waveform = audio.resample(waveform, sample_rate, front_end.sample_rate)
    if not len(waveform):
        raise ValueError(f"samples are too short: none is left at {front_end.sample_rate} Hz")
    yield waveform


@dataclasses.dataclass
class _Pending:
    """A recording whose windows are being classified."""

    recording: Any
    seconds: float = 0.0  # decoded so far, as the three below
    peak: float = 0.0
    num_windows: int = 0
    is_decoded: bool = False  # to its end
    error: InputError | None = None
    outputs: list = dataclasses.field(default_factory=list)  # (start, scenes, events) of windows

    @property
    def is_ready(self) -> bool:
        classified = self.is_decoded and len(self.outputs) == self.num_windows
        return classified or self.error is not None

    def measured(self, blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
        """The same blocks; updates `seconds` and `peak`."""
        for block in blocks:
            self.seconds += len(block) / rate
            self.peak = max(self.peak, float(np.abs(block).max()))
            yield block


def _classification(pending: _Pending, bundle: Bundle) -> Classification | InputError:
    starts, scenes, events = zip(*pending.outputs, strict=True)
    if not (np.isfinite(scenes).all() and np.isfinite(events).all()):
        return InputError("the bundle's outputs are not finite: its weights are damaged")
    recording, seconds, notes = pending.recording, pending.seconds, []
    if pending.peak < SILENCE:
        notes.append("silence: no sample is above -100 dB of full scale")
    if seconds < bundle.clip_seconds:
        how = {"zero": "silence", "repeat": "itself again"}[bundle.pad]
        notes.append(f"{seconds:.3g} s are filled with {how} to {bundle.clip_seconds:g} s")

    def predicted(scenes: np.ndarray, events: np.ndarray) -> dict[str, dict[str, float]]:
        return {"scenes": _ranked(bundle.scenes, scenes), "events": _ranked(bundle.events, events)}

    return Classification(
        start=0.0,
        stop=seconds,
        **predicted(np.mean(scenes, axis=0), np.mean(events, axis=0)),
        name=os.fspath(recording) if isinstance(recording, str | os.PathLike) else "",
        timeline=tuple(
            Window(start, min(start + bundle.clip_seconds, seconds), **predicted(scene, event))
            for start, scene, event in pending.outputs
        ),
        notes=tuple(notes),
    )


def _ranked(names: tuple[str, ...], probabilities: np.ndarray) -> dict[str, float]:
    return {names[i]: float(probabilities[i]) for i in np.argsort(-probabilities, kind="stable")}
