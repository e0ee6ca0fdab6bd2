"""A trained model in use: recordings in, scenes and events out.

Shapes: L samples of a recording, W windows of it, B windows of a batch, n events, T tokens.
"""

import dataclasses
import functools
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
HIGHEST_RATE = 10_000_000  # Hz; the resampler never ends on what is no rate


@dataclasses.dataclass(frozen=True)
class Window:
    """What the model says of one stretch of a recording.

    Attributes:
      start, stop: seconds in the recording; `stop` is its end where it ends before the window.
      scenes: calibrated probability of each scene, the most probable first.
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
        """How probable it is."""
        return self.scenes[self.scene]


@dataclasses.dataclass(frozen=True)
class Classification(Window):
    """What the model says of a whole recording: the mean over its windows.

    Attributes:
      name: its path, or "" for samples.
      timeline: its windows, in order.
      notes: what a reader of the result should know, a sentence each.
    """

    name: str
    timeline: tuple[Window, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The same as dicts, lists, strings and numbers, for JSON."""
        return {"scene": self.scene, "probability": self.probability} | dataclasses.asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.name or 'recording'}, {self.stop:.1f} s"]
        lines += [f"  {100 * p:5.1f} %  {scene}" for scene, p in _top(self.scenes, 3)]
        if self.events:
            events = ", ".join(f"{event} {p:.2f}" for event, p in _top(self.events, 5))
            lines += [f"  events: {events}"]
        if len(self.timeline) > 1:
            lines += [
                f"  {window.start:7.1f} to {window.stop:.1f} s  {window.scene} "
                f"({100 * window.probability:.0f} %)"
                for window in self.timeline
            ]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def _top(ranked: Mapping[str, float], count: int) -> Iterable[tuple[str, float]]:
    return itertools.islice(ranked.items(), count)


def load(directory: str | os.PathLike) -> "Model":
    """The model in a bundle's directory; InputError where it can't be used (`bundle.load`)."""
    return Model(bundles.load(directory))


class Model:
    """A bundle, compiled for windows of its clip length when it is first used.

    Attributes:
      bundle: the Bundle.
      module: its Flax module.
      variables: of the module, on the device.
    """

    def __init__(self, bundle: Bundle):
        if not bundle.scenes:
            raise InputError(
                "the bundle names no scenes: it tags events (a PANN), and classifies nothing; "
                "take the bundle of a trained run, <workdir>/bundle"
            )
        self.bundle = bundle
        self.module = bundle.build()
        self.variables = jax.device_put(dict(bundle.variables))

    def classify(
        self, recordings: str | os.PathLike | np.ndarray | list, *, sample_rate: int | None = None
    ) -> Classification | list[Classification]:
        """The scenes and events of a recording, or of each in a list.

        A recording of any length is cut into windows of the bundle's clip length; its
        probabilities are their mean.

        Args:
          recordings: a file, or samples (L,) or (L, channels), floating point with full scale 1;
            or a list of these.
          sample_rate: of samples, in Hz.

        Raises:
          InputError: what can't be read or isn't audio, samples without a rate, samples that are
            not finite.
        """
        several = isinstance(recordings, list | tuple)
        found = []
        for _, result in self.classify_each(
            recordings if several else [recordings], sample_rate=sample_rate
        ):
            if isinstance(result, InputError):
                raise result
            found.append(result)
        return found if several else found[0]

    def classify_each(
        self, recordings: Iterable, *, sample_rate: int | None = None
    ) -> Iterator[tuple[Any, Classification | InputError]]:
        """Yields each of `recordings` with its Classification, or with the error that it earned.

        In order, as soon as it is there: windows of several recordings share a batch.
        """
        gathered = _Gathered(self.bundle)
        windows = gathered.windows(recordings, sample_rate)
        while batch := list(itertools.islice(windows, BATCH_SIZE)):
            logits, events = self.outputs(np.stack([waveform for _, waveform in batch]))
            scenes = softmax(logits, axis=1)
            for (key, _), *found in zip(batch, scenes, events, strict=True):
                gathered.add(key, *found)
            yield from gathered.finished()
        yield from gathered.finished()

    def outputs(self, waveforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the module gives for windows (B, L) at the bundle's rate and clip length.

        Returns:
          Scene logits (B, scenes) divided by the bundle's temperature, so that their softmax is
          calibrated, and event probabilities (B, n), n = 0 for a model without events.
        """
        whole = len(waveforms) - len(waveforms) % BATCH_SIZE
        batches = [waveforms[i : i + BATCH_SIZE] for i in range(0, whole, BATCH_SIZE)]
        if len(waveforms) - whole > BATCH_SIZE // 2:
            rest = waveforms[whole:]
            batches += [np.pad(rest, ((0, BATCH_SIZE - len(rest)), (0, 0)))]
        else:  # most recordings are one window: a program for one alone
            batches += [waveform[None] for waveform in waveforms[whole:]]
        found = [jax.device_get(self._program(batch)) for batch in batches]
        return tuple(np.concatenate(each)[: len(waveforms)] for each in zip(*found, strict=True))

    @functools.cached_property
    def _program(self):
        """Compiled once for each of two batch sizes."""

        def run(variables, waveforms):
            log_mel = audio.log_mel(waveforms, self.bundle.front_end)
            output = self.module.apply(variables, log_mel, train=False)
            events = output.event_logits
            if events is None:
                events = np.zeros((len(waveforms), 0), np.float32)
            return output.scene_logits / self.bundle.temperature, nn.sigmoid(events)

        return functools.partial(jax.jit(run), self.variables)


def waveform_blocks(
    recording: str | os.PathLike | np.ndarray, sample_rate: int | None, front_end: audio.FrontEnd
) -> Iterator[np.ndarray]:
    """A file or samples as mono blocks (l,) for a front end; see `Model.classify` for errors."""
    wanted = front_end.sample_rate
    if _is_path(recording):
        yield from audio.stream_audio(recording, wanted, front_end.channel)
        return
    if not hasattr(recording, "__array__"):
        kind = type(recording).__name__
        raise InputError(f"a recording is a file's path or an array of samples, not {kind}")
    samples = np.asarray(recording)
    if sample_rate is None:
        raise InputError("samples without a rate: say classify(samples, sample_rate=HZ)")
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, numbers.Real):
        raise InputError(f"sample_rate={sample_rate!r} must be a number of Hz")
    if not 1 <= sample_rate <= HIGHEST_RATE:
        raise InputError(f"sample_rate={sample_rate!r} must be a number of Hz, 1 to {HIGHEST_RATE}")
    if samples.ndim not in (1, 2) or not samples.size or samples.shape[-1] > len(samples):
        raise InputError(
            f"samples are (L,) or (L, channels) and not empty, not {samples.shape}: transpose "
            "what has its channels first"
        )
    if not np.issubdtype(samples.dtype, np.floating):
        raise InputError(
            f"samples are {samples.dtype}: make them floating point with full scale 1 (for int16, "
            "divide by 32768)"
        )
    audio.check_samples(samples, "samples")
    waveform = audio.mono(samples.astype(np.float32).reshape(len(samples), -1), front_end.channel)
    waveform = audio.resample(waveform, sample_rate, wanted)
    if not len(waveform):
        raise InputError(f"samples are too short: none is left at {wanted} Hz")
    yield waveform


class _Gathered:
    """The windows of many recordings on their way through batches, and what came of them."""

    def __init__(self, bundle: Bundle):
        self._bundle = bundle
        self._open = []  # recordings in order: _Recording, the first not yet handed out

    def windows(self, recordings: Iterable, sample_rate) -> Iterator[tuple[tuple, np.ndarray]]:
        """Yields (key, (L,)) for each window of each recording."""
        front_end, rate = self._bundle.front_end, self._bundle.front_end.sample_rate
        length = front_end.num_samples(self._bundle.clip_seconds)
        # Many files of five seconds have a millisecond more, which needs no window.
        cut = {"pad": self._bundle.pad, "min_rest": math.ceil(length / 100)}
        for recording in recordings:
            entry = _Recording(recording)
            self._open.append(entry)
            try:
                blocks = entry.measured(waveform_blocks(recording, sample_rate, front_end), rate)
                for start, window in audio.segment(blocks, length, **cut):
                    entry.asked += 1
                    yield (entry, start / rate), window
                entry.read = True
            except InputError as error:
                entry.error = error

    def add(self, key: tuple, scenes: np.ndarray, events: np.ndarray) -> None:
        entry, start = key
        entry.results.append((start, scenes, events))

    def finished(self) -> Iterator[tuple[Any, Classification | InputError]]:
        """Hands out, in order, what all windows have been answered of."""
        while self._open and (self._open[0].error or self._open[0].whole):
            entry = self._open.pop(0)
            yield entry.recording, entry.error or self._classification(entry)

    def _classification(self, entry: "_Recording") -> Classification:
        bundle, seconds = self._bundle, entry.seconds
        for _, scenes, events in entry.results:
            if not (np.isfinite(scenes).all() and np.isfinite(events).all()):
                return InputError("the bundle's outputs are not finite: its weights are damaged")
        named = [
            Window(
                start=start,
                stop=min(start + bundle.clip_seconds, seconds),
                scenes=_ranked(bundle.scenes, scenes),
                events=_ranked(bundle.events, events),
            )
            for start, scenes, events in entry.results
        ]
        _, scenes, events = zip(*entry.results, strict=True)
        notes = []
        if entry.peak < SILENCE:
            notes.append("silence: no sample is above -100 dB of full scale")
        if seconds < bundle.clip_seconds:
            how = {"zero": "silence", "repeat": "itself again"}[bundle.pad]
            notes.append(f"{seconds:.3g} s are filled with {how} to {bundle.clip_seconds:g} s")
        return Classification(
            start=0.0,
            stop=seconds,
            scenes=_ranked(bundle.scenes, np.mean(scenes, axis=0)),
            events=_ranked(bundle.events, np.mean(events, axis=0)),
            name=os.fspath(entry.recording) if _is_path(entry.recording) else "",
            timeline=tuple(named),
            notes=tuple(notes),
        )


class _Recording:
    """A recording whose windows are being classified."""

    def __init__(self, recording):
        self.recording = recording
        self.asked = 0  # windows that were cut
        self.read = False  # to its end
        self.error: InputError | None = None
        self.results = []  # (start in seconds, scenes, events), in order
        self.seconds, self.peak = 0.0, 0.0

    @property
    def whole(self) -> bool:
        return self.read and len(self.results) == self.asked

    def measured(self, blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
        """The same blocks, their length and peak noted."""
        for block in blocks:
            self.seconds += len(block) / rate
            self.peak = max(self.peak, float(np.abs(block).max()))
            yield block


def _is_path(recording) -> bool:
    return isinstance(recording, str | os.PathLike)


def _ranked(names: tuple[str, ...], probabilities: np.ndarray) -> dict[str, float]:
    return {names[i]: float(probabilities[i]) for i in np.argsort(-probabilities, kind="stable")}
