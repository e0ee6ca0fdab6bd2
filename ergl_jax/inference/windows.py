"""The windows of recordings, in a model's sample rate and clip length.

Shapes: L samples of a window, l of a block.
"""

import collections
import dataclasses
import math
import numbers
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ergl_jax import audio
from ergl_jax.bundle import Bundle
from ergl_jax.errors import InputError

MAX_SAMPLE_RATE = 10_000_000  # Hz; above, the resampler takes forever


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

    def mean(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """The mean of the windows' values, without silent windows unless all are."""
        used = ~np.array(self.silent) if not all(self.silent) else slice(None)
        return np.mean(np.array(values)[used], axis=0)

    def measured(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The same blocks; updates `length`."""
        for block in blocks:
            self.length += len(block)
            yield block
