"""Cuts recordings of any length into clips of one length."""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ergl_jax.audio.front_end import FrontEnd
from ergl_jax.errors import InputError

PADS = ("zero", "repeat")
LONGS = ("crop", "windows")
MAX_SECONDS = 3600.0  # of a clip


def segment(
    recording: np.ndarray | Iterable[np.ndarray],
    length: int,
    *,
    pad: str = "zero",
    long: str = "windows",
    min_rest: int = 1,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (start, clip): the clip's first sample in the recording, and its samples (length,).

    Windows of a stream are yielded as soon as their samples arrive, so that memory does not grow
    with the recording's length.

    Args:
      recording: a waveform (L,), or an iterable of its consecutive blocks (l,).
      length: samples of a clip.
      pad: how the end of a shorter recording is filled: "zero", or "repeat" for the recording
        again.
      long: "crop" takes the centre of a longer recording; "windows" cuts all of it into consecutive
        clips, of which the last one ends with the recording and so may overlap the one before.
      min_rest: with fewer samples than this after the last full window, there is no overlapping
        window for them.
    """
    if length < 1 or pad not in PADS or long not in LONGS:
        raise ValueError(f"length={length}, pad={pad!r}, long={long!r}: see ergl_jax.audio.segment")
    blocks = [recording] if isinstance(recording, np.ndarray) else recording
    if long == "crop":
        waveform = np.concatenate(list(blocks))
        start = max(0, (len(waveform) - length) // 2)
        yield start, fill(waveform[start : start + length], length, pad)
        return
    start = 0  # of `rest`
    window = rest = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        while len(rest) >= length:
            window, rest = rest[:length], rest[length:]
            yield start, window
            start += length
    if not start and len(rest):
        yield 0, fill(rest, length, pad)
    elif len(rest) >= max(1, min_rest):
        yield start + len(rest) - length, np.concatenate([window, rest])[-length:]


def fill(waveform: np.ndarray, length: int, pad: str) -> np.ndarray:
    """(l,) -> (length,), for 0 < l <= length; `pad` as of `segment`."""
    if pad == "repeat":
        return np.resize(waveform, length)
    return np.pad(waveform, (0, length - len(waveform)))


def check(front_end: FrontEnd, clip_seconds: float, pad: str, long: str) -> None:
    """InputError unless a user's `clip_seconds`, `pad` and `long` suit the front end."""
    shortest = front_end.min_samples
    if not (0 < clip_seconds <= MAX_SECONDS and front_end.num_samples(clip_seconds) >= shortest):
        raise InputError(
            f"data.clip_seconds is {clip_seconds}: {front_end.name} needs "
            f"{shortest / front_end.sample_rate:.3f} s or more, at most {MAX_SECONDS:g} s"
        )
    for name, value, allowed in (("pad", pad, PADS), ("long", long, LONGS)):
        if value not in allowed:
            raise InputError(f"data.{name} is {value!r}: choose one of {', '.join(allowed)}")


def prefetch(function: Callable, items: Iterable) -> Iterator[tuple]:
    """Yields (item, future of function(item)) in order, computed a few items ahead in threads.

    Decoding and resampling release the GIL. The bound limits how many results are in memory.
    """
    workers = os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        pending: collections.deque[tuple] = collections.deque()
        for item in items:
            pending.append((item, pool.submit(function, item)))
            if len(pending) > 2 * workers:
                yield pending.popleft()
        yield from pending
