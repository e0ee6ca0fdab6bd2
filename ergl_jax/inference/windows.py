"""The windows of recordings, in a model's sample rate and clip length, and a model run on them.

Shapes: L samples of a window, l of a block, W windows of a recording, B of a batch.
"""

import collections
import dataclasses
import itertools
import math
import numbers
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ergl_jax import audio
from ergl_jax.audio.levels import is_silent, note_silence
from ergl_jax.bundle import Bundle
from ergl_jax.errors import InputError

MAX_SAMPLE_RATE = 10_000_000  # Hz; above, the resampler takes forever
BATCH_SIZE = 8


def listed(recordings: Any) -> tuple[list, bool]:
    """Recordings as a list, and whether they are several: a list or a folder's."""
    if isinstance(recordings, str | os.PathLike) and os.path.isdir(recordings):
        return audio.expand(recordings), True
    if isinstance(recordings, list | tuple):
        return list(recordings), True
    return [recordings], False


def results_of(
    each: Callable, recordings: Any, sample_rate: float | None, channel: str | None
) -> Any:
    """The result of a recording, or a list for several, from what `each` yields; raises errors.

    `each` yields (recording, result or InputError), as `Model.classify_each` does.
    """
    recordings, several = listed(recordings)
    results = []
    for _, result in each(recordings, sample_rate=sample_rate, channel=channel):
        if isinstance(result, InputError):
            raise result
        results.append(result)
    return results if several else results[0]


def run_windows(
    recordings: str | os.PathLike | Iterable,
    sample_rate: float | None,
    channel: str | None,
    bundle: Bundle,
    run: Callable[[np.ndarray], tuple[np.ndarray, ...]],
) -> Iterator["Pending"]:
    """Yields each recording with its error, or with what `run` returns for its windows (B, L).

    In order, each as soon as it is ready. Windows of several recordings share a batch.
    """
    if isinstance(recordings, str | os.PathLike):
        recordings, _ = listed(recordings)
    queue: collections.deque[Pending] = collections.deque()
    each = windows(recordings, sample_rate, channel, bundle, queue)
    while True:
        if batch := list(itertools.islice(each, BATCH_SIZE)):
            found = run(np.stack([window for _, _, window in batch]))
            for (pending, start, window), *outputs in zip(batch, *found, strict=True):
                pending.outputs.append((start, *outputs))
                pending.silent.append(is_silent(window))
                if not all(np.isfinite(x).all() for x in outputs):
                    pending.error = InputError(
                        "the bundle's outputs are not finite: its weights are damaged"
                    )
        while queue and queue[0].is_ready:
            pending = queue.popleft()
            pending.notes += note_silence(pending.silent, ", and left out")
            yield pending
        if not batch:
            return


def in_batches(
    program: Callable, variables: Mapping, waveforms: np.ndarray
) -> tuple[np.ndarray, ...]:
    """What `program(variables, waveforms)` returns for windows (B, L), B >= 1.

    It is called on batches of one of two sizes, which it is compiled for.
    """
    batches = [waveforms[i : i + BATCH_SIZE] for i in range(0, len(waveforms), BATCH_SIZE)]
    missing = BATCH_SIZE - len(batches[-1])
    if missing < BATCH_SIZE // 2:
        batches[-1] = np.pad(batches[-1], ((0, missing), (0, 0)))
    else:  # one at a time: most recordings are a single window
        batches[-1:] = [waveform[None] for waveform in batches[-1]]
    outputs = [jax.device_get(program(variables, batch)) for batch in batches]
    return tuple(np.concatenate(x)[: len(waveforms)] for x in zip(*outputs, strict=True))


def windows(
    recordings: Iterable,
    sample_rate: float | None,
    channel: str | None,
    bundle: Bundle,
    queue: "collections.deque[Pending]",
) -> Iterator[tuple["Pending", float, np.ndarray]]:
    """Yields (recording, start in seconds, (L,)) for each window; queues each recording."""
    front_end = bundle.front_end.with_channel(channel)
    length = front_end.num_samples(bundle.clip_seconds)
    rest = min_rest(length)
    for recording in recordings:
        pending = Pending(recording)
        queue.append(pending)
        try:
            blocks = waveform_blocks(recording, sample_rate, front_end, pending.notes)
            blocks = pending.measured(blocks)
            for start, window in audio.segment(blocks, length, pad=bundle.pad, min_rest=rest):
                pending.num_windows += 1
                yield pending, start / front_end.sample_rate, window
            pending.is_decoded = True
        except InputError as error:
            pending.error = error


def min_rest(length: int) -> int:
    """Samples after the last full window of `length` that need a window; see `audio.segment`.

    Many files of five seconds have a millisecond more, which needs none.
    """
    return math.ceil(length / 100)


def waveform_blocks(
    recording: str | os.PathLike | np.ndarray,
    sample_rate: float | None,
    front_end: audio.FrontEnd,
    notes: list[str] | None = None,
) -> Iterator[np.ndarray]:
    """A file or samples as mono blocks (l,) for a front end; see `Model.classify` for errors.

    `notes` as in `audio.stream_audio`.
    """
    notes = [] if notes is None else notes
    rate, channel = front_end.sample_rate, front_end.channel
    if isinstance(recording, str | os.PathLike):
        yield from audio.stream_audio(recording, rate, channel, notes)
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
    audio.check_samples(samples, "samples")  # before float64 overflows
    samples = samples.astype(np.float32).reshape(len(samples), -1)
    yield from audio.mix([(samples, float(sample_rate))], rate, channel, "samples", notes)


@dataclasses.dataclass
class Pending:
    """A recording whose windows a model is reading.

    Attributes:
      recording: a file or samples.
      length: samples that are decoded so far, at the rate of the model's front end.
      num_windows: how many windows that is.
      is_decoded: whether it is decoded to its end.
      error: why it can't be used.
      outputs: (start in seconds, what the model returns...) of each window so far.
      silent: whether each of these is silence.
      notes: sentences about what is unusual.
    """

    recording: Any
    length: int = 0
    num_windows: int = 0
    is_decoded: bool = False
    error: InputError | None = None
    outputs: list = dataclasses.field(default_factory=list)
    silent: list[bool] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def name(self) -> str:
        """Its path, or "" for samples."""
        is_file = isinstance(self.recording, str | os.PathLike)
        return os.fspath(self.recording) if is_file else ""

    @property
    def is_ready(self) -> bool:
        """Whether all its windows are read, or it can't be."""
        is_read = self.is_decoded and len(self.outputs) == self.num_windows
        return is_read or self.error is not None

    @property
    def used(self) -> np.ndarray:
        """(W,): whether a window counts: silent ones don't, unless all are."""
        return ~np.array(self.silent) | all(self.silent)

    def mean(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """The mean of the values of the windows that count."""
        return np.mean(np.array(values)[self.used], axis=0)

    def filled(self, bundle: Bundle) -> list[str]:
        """A note if the recording is shorter than the bundle's clips, with how it is filled."""
        rate, clip_seconds = bundle.front_end.sample_rate, bundle.clip_seconds
        if self.length >= bundle.front_end.num_samples(clip_seconds):
            return []
        how = {"zero": "with silence", "repeat": "by repeating it"}[bundle.pad]
        return [f"padded from {self.length / rate:.3g} to {clip_seconds:g} s {how}"]

    def measured(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The same blocks; updates `length`."""
        for block in blocks:
            self.length += len(block)
            yield block
