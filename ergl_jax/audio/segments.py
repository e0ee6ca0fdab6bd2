"""Recordings of any length to waveforms of one: how they are cut, and decoded ahead of use."""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ergl_jax import audio
from ergl_jax.errors import InputError

LONGEST = 3600.0  # seconds of a clip; a bundle of longer ones can't be read either


def check(front_end: audio.FrontEnd, clip_seconds: float, pad: str, long: str) -> None:
    """InputError unless `cut` can make clips of this length that the front end can take."""
    if not 0 < clip_seconds <= LONGEST:
        raise InputError(f"clip_seconds is {clip_seconds}: use more than 0, at most {LONGEST:g}")
    if front_end.num_samples(clip_seconds) < front_end.least_samples:
        least = front_end.least_samples / front_end.sample_rate
        raise InputError(f"clip_seconds is {clip_seconds}: {front_end.name} needs {least:.3f} s")
    if pad not in ("zero", "repeat"):
        raise InputError(f'pad is {pad!r}: choose "zero" or "repeat"')
    if long not in ("crop", "windows"):
        raise InputError(f'long is {long!r}: choose "crop" or "windows"')


def cut(waveform: np.ndarray, length: int, pad: str, long: str) -> np.ndarray:
    """(L,) -> (W, length): the centre of a longer waveform (W = 1), or all of it in windows."""
    if long == "windows":
        return audio.windows(waveform, length, pad=pad)
    return audio.fit_length(waveform, length, pad=pad)[None]


def ahead(function: Callable, items: Iterable) -> Iterator[tuple]:
    """Yields (item, future of function(item)) in order, a few items ahead, in threads.

    soundfile and soxr let go of the GIL, and the bound keeps the waveforms in memory few.
    """
    workers = os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        pending = collections.deque()
        for item in items:
            pending.append((item, pool.submit(function, item)))
            if len(pending) > 2 * workers:
                yield pending.popleft()
        yield from pending
