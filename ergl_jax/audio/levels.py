"""Mixes to mono, and notes what is wrong with the samples of a recording."""

import math
import os
from collections.abc import Sequence

import numpy as np

from ergl_jax.errors import InputError

MAX_PEAK = 1e15  # times full scale; a little above, the power of float32 samples overflows
LOUD = 10.0  # times full scale; recorders that write floats stay below
SILENCE = 1e-5  # a peak below -100 dB of full scale
CANCELLED = 1e-2  # the power of a mixture, -20 dB of its channels': uncorrelated ones have -3 dB
LOW_RATE = 8000  # Hz, of telephones


def mono(samples: np.ndarray, channel: str) -> np.ndarray:
    """(L, channels) -> (L,): the "mean" of the channels, the "left" (first) or "right" (second).

    A recording of one channel has only that.
    """
    if channel == "mean":
        return samples.mean(axis=1)
    right = channel == "right" and samples.shape[1] > 1
    return samples[:, int(right)].copy()


def check_samples(samples: np.ndarray, name: str | os.PathLike) -> float:
    """The peak; InputError for samples that are NaN, infinite or louder than MAX_PEAK."""
    peak = float(np.abs(samples).max(initial=0.0))
    if not peak <= MAX_PEAK:
        loud = f"a sample of {peak:.0e}, where full scale is 1: damaged?"
        found = loud if np.isfinite(peak) else "samples that are NaN or infinite"
        raise InputError(f"{name}: has {found}")
    return peak


def is_silent(window: np.ndarray) -> bool:
    """Whether no sample is above -100 dB of full scale."""
    return float(np.abs(window).max(initial=0.0)) < SILENCE


def note_silence(silent: Sequence[bool], then: str = "") -> list[str]:
    """A note if some of a recording's windows are silence, but not all; `then` ends it."""
    count = sum(silent)
    some = 0 < count < len(silent)
    return [f"{count} of its {len(silent)} windows are silence{then}"] if some else []


class Levels:
    """The levels of a recording, block by block, before and after it is mixed to mono."""

    def __init__(self, name: str | os.PathLike, channel: str):
        self._name, self._channel = name, channel
        self._peak = self._mono_peak = 0.0
        self._power = self._mono_power = 0.0  # sums over time; of all channels their mean
        self._rate = math.inf

    def mix(self, samples: np.ndarray, rate: float) -> np.ndarray:
        """(l, channels) -> (l,) as `mono`; InputError as `check_samples`."""
        self._rate = min(self._rate, rate)
        self._peak = max(self._peak, check_samples(samples, self._name))
        waveform = mono(samples, self._channel)
        if samples.shape[1] > 1:
            flat = samples.ravel()
            self._power += float(np.vdot(flat, flat)) / samples.shape[1]
            self._mono_power += float(np.vdot(waveform, waveform))
        return waveform

    def measure(self, waveform: np.ndarray) -> None:
        """Takes a block (l,) of the result."""
        self._mono_peak = max(self._mono_peak, float(np.abs(waveform).max(initial=0.0)))

    def notes(self) -> list[str]:
        """A sentence about each thing that is unusual."""
        notes = []
        if self._peak > LOUD:
            notes.append(
                f"samples reach {self._peak:.0f}, where full scale is 1: divide 16-bit values by "
                "32768"
            )
        if self._peak >= SILENCE and self._mono_power < CANCELLED * self._power:
            below = 10 * math.log10(self._power / max(self._mono_power, 1e-30 * self._power))
            decibels = f"{min(below, 100):.0f} dB below"
            what = (
                f"the channels cancel: their mean is {decibels} them"
                if self._channel == "mean"
                else f"the {self._channel} channel is {decibels} the mean level of all"
            )
            notes.append(
                f"{what}; choose another with --channel=left, right or mix (to train and test: "
                "data.front_end=paper:left)"
            )
        elif self._mono_peak < SILENCE:
            notes.append("silence: no sample is above -100 dB of full scale")
        if self._rate < LOW_RATE:
            notes.append(f"sample rate {self._rate:g} Hz: no content above half of that")
        return notes
