"""Fourteen synthesised sounds, named as AudioSet names the events; in Hz and seconds.

`render` makes one burst of one event. Each generator is a few lines on three primitives: a
band-limited wavetable oscillator, shaped noise, and decaying hits.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.fft

FADE_SECONDS = 0.008
_TABLE = 2048  # samples of one wavetable cycle
_VOWELS = ((750, 1200, 2500), (320, 2200, 2900), (350, 850, 2400), (520, 1750, 2600))  # formants
_PENTATONIC = np.array([0, 2, 4, 7, 9, 12])  # semitones
# Partials of a bell: frequency as a multiple of the strike note, amplitude.
_BELL = ((0.5, 0.5), (1.0, 1.0), (1.19, 0.7), (1.56, 0.5), (2.0, 0.8), (2.66, 0.5), (3.01, 0.4))


class Voice(NamedTuple):
    """How one source differs from others of its event."""

    pitch: float  # factor on every frequency
    rate: float  # factor on every repetition rate
    tilt: float  # spectral tilt, dB an octave, around 1 kHz


def _bump(f: np.ndarray, centre: float, octaves: float) -> np.ndarray:
    """A Gaussian over log frequency: 1 at `centre`, e^-1/2 at `octaves` from it."""
    return np.exp(-0.5 * (np.log2(f / centre) / octaves) ** 2)


class _Burst:
    """What generators combine: n samples' time axis, random numbers, voice and primitives."""

    def __init__(self, rng: np.random.Generator, voice: Voice, length: int, sample_rate: int):
        self.rng, self.voice, self.pitch, self.sample_rate = rng, voice, voice.pitch, sample_rate
        self.t = np.arange(length) / sample_rate  # (n,) seconds

    def beats(self, per_second: float, wobble: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """The current beat's number (n,) int and how much of it has passed (n,), 0 to 1.

        `wobble` shifts beats back and forth by that fraction of a beat.
        """
        x = per_second * self.voice.rate * self.t
        x = x + wobble * np.sin(2 * np.pi * 0.381 * x)
        number = np.floor(x)
        return number.astype(np.int64), (x - number).astype(np.float32)

    def decay(self, passed: np.ndarray, per_second: float, seconds: float) -> np.ndarray:
        """Envelope (n,) of a hit on each beat: 2 ms attack, then decay to 1/e in `seconds`."""
        age = passed / np.float32(per_second * self.voice.rate)
        return np.exp(-age / np.float32(seconds)) * np.minimum(age / np.float32(0.002), 1)

    def swing(self, per_second: float) -> np.ndarray:
        """A slow sine (n,) of random phase."""
        cycles = self.rng.random() + per_second * self.voice.rate * self.t
        return np.sin((2 * np.pi * cycles).astype(np.float32))

    def tone(self, f0, spectrum: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Harmonics (n,) of `f0`, a number or (n,) in Hz, weighted by `spectrum(Hz)`."""
        f0 = np.asarray(f0, np.float64)
        top = 0.45 * self.sample_rate / f0.max()  # the last harmonic that doesn't alias
        if top < 1:
            return np.zeros(len(self.t), np.float32)
        k = np.arange(1, min(int(top), 96) + 1)
        f = k * f0.mean()
        weights = np.zeros(_TABLE // 2 + 1, np.complex128)
        weights[k] = spectrum(f) * self._tilt(f) * np.exp(2j * np.pi * self.rng.random(96)[k - 1])
        table = np.fft.irfft(weights, _TABLE).astype(np.float32) * np.float32(_TABLE)
        cycles = np.cumsum(f0 / self.sample_rate) if f0.ndim else self.t * f0
        return table[(cycles * _TABLE).astype(np.int64) & (_TABLE - 1)]

    def noise(self, spectrum: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Gaussian noise (n,) of RMS about 1 with the magnitudes `spectrum(Hz)`."""
        return shaped_noise(
            self.rng, len(self.t), self.sample_rate, lambda f: spectrum(f) * self._tilt(f)
        )

    def _tilt(self, f: np.ndarray) -> np.ndarray:
        return (f / 1000) ** (self.voice.tilt / 6.02)


def shaped_noise(
    rng: np.random.Generator,
    length: int,
    sample_rate: int,
    spectrum: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Gaussian noise (length,) float32 of RMS about 1 with the magnitudes `spectrum(Hz)`."""
    size = scipy.fft.next_fast_len(length, real=True)
    bins = size // 2 + 1
    # The curve is smooth: 512 points are enough, and much faster than one per bin.
    grid = np.geomspace(20, sample_rate / 2, 512)
    f = np.arange(bins) * (sample_rate / size)
    curve = np.interp(f, grid, spectrum(grid), left=0).astype(np.float32)
    white = rng.standard_normal(2 * bins, dtype=np.float32).view(np.complex64)
    norm = size / np.sqrt(4 * np.sum(np.square(curve), dtype=np.float64) + 1e-12)
    return scipy.fft.irfft(white * (curve * np.float32(norm)), size)[:length]


def fade_ends(wave: np.ndarray, ramp: np.ndarray) -> None:
    """Multiplies the first samples of a waveform by `ramp` and the last ones by its reverse."""
    wave[: len(ramp)] *= ramp
    wave[len(wave) - len(ramp) :] *= ramp[::-1]


def limit_peak(wave: np.ndarray, peak: float) -> np.float32:
    """What to divide a waveform by so that its peak is at most `peak`; 1 where it already is."""
    return np.float32(max(1.0, np.abs(wave).max() / peak))


def _formants(f: np.ndarray, centres: tuple[int, ...]) -> np.ndarray:
    return sum((_bump(f, c, 0.16) * (400 / c) ** 0.5 for c in centres), np.zeros(()))


def _speech(b: _Burst) -> np.ndarray:
    syllable, passed = b.beats(4.5, wobble=0.15)
    f0 = 140 * b.pitch * (1 + 0.12 * b.swing(0.7) - 0.10 * passed)
    first, second = b.rng.choice(len(_VOWELS), 2, replace=False)
    mix = b.rng.random(97).astype(np.float32)[syllable % 97]
    voiced = np.float32(0)
    for vowel, weight in ((_VOWELS[first], mix), (_VOWELS[second], 1 - mix)):
        formants = functools.partial(_formants, centres=vowel)
        voiced = voiced + weight * b.tone(f0, formants)
    hiss = b.noise(lambda f: _bump(f, 4500, 0.4)) * (passed < 0.2)
    # float32 can round the sine at a beat's end below zero.
    return voiced * np.maximum(np.sin(np.pi * passed), 0) ** 0.7 + 0.12 * hiss


def _footsteps(b: _Burst) -> np.ndarray:
    step, passed = b.beats(2.2, wobble=0.05)
    foot = np.where(step % 2, np.float32(0.8), np.float32(1))
    thump = b.noise(lambda f: _bump(f, 170 * b.pitch, 0.7)) * b.decay(passed, 2.2, 0.05)
    toe = np.where(passed > 0.25, passed - 0.25, 1)
    hits = b.decay(passed, 2.2, 0.015) + 0.8 * b.decay(toe, 2.2, 0.03)
    grit = b.noise(lambda f: _bump(f, 2200 * b.pitch, 0.6)) * hits
    return foot * (thump + 0.6 * grit)


def _dog(b: _Burst) -> np.ndarray:
    _, passed = b.beats(3.6, wobble=0.15)
    f0 = 420 * b.pitch * (0.75 + 0.55 * np.sin(np.pi * np.minimum(passed * 2, 1)))
    bark = b.tone(f0, lambda f: _bump(f, 1100 * b.pitch, 0.6))
    breath = b.noise(lambda f: _bump(f, 1500 * b.pitch, 0.5))
    return (bark + 0.5 * breath) * b.decay(passed, 3.6, 0.10)


def _bird(b: _Burst) -> np.ndarray:
    note, passed = b.beats(7.0, wobble=0.1)
    start, sweep = b.rng.uniform(0.85, 1.1, 31), b.rng.uniform(-0.25, 0.25, 31)
    f0 = 3600 * b.pitch * (start[note % 31] + sweep[note % 31] * passed)
    return b.tone(f0, lambda f: 1 / f) * np.sin(np.pi * np.minimum(passed / 0.7, 1)) ** 2


def _music(b: _Burst) -> np.ndarray:
    note, passed = b.beats(3.2)
    tune = _PENTATONIC[b.rng.integers(0, len(_PENTATONIC), 53)]
    key = 392 * b.pitch
    lead = b.tone(key * 2.0 ** (tune[note % 53] / 12), lambda f: f**-1.2)
    lead = lead * b.decay(passed, 3.2, 0.25)
    chord = sum(b.tone(key * ratio, lambda f: f**-1.5) for ratio in (0.5, 0.63, 0.75))
    return lead / key**-1.2 + 0.35 * chord / (key / 2) ** -1.5


def _bell(b: _Burst) -> np.ndarray:
    _, passed = b.beats(2.0)
    ring = sum(
        b.tone(1250 * b.pitch * ratio, lambda f, w=weight: w * (f < 1.5 * f.min()))  # type: ignore[misc]
        for ratio, weight in _BELL
    )
    return ring * b.decay(passed, 2.0, 0.35)


def _wind(b: _Burst) -> np.ndarray:
    gust = 1 + 0.5 * b.swing(0.8) + 0.2 * b.swing(2.1)
    low = b.noise(lambda f: _bump(f, 220 * b.pitch, 0.8))
    howl = b.noise(lambda f: _bump(f, 620 * b.pitch, 0.07))
    return (gust * (low + 0.5 * gust * howl)).astype(np.float32)


def _water(b: _Burst) -> np.ndarray:
    bubble, passed = b.beats(11.0, wobble=0.3)
    f0 = 700 * b.pitch * b.rng.uniform(0.7, 1.6, 61)[bubble % 61] * (1 + 0.4 * passed)
    drops = b.tone(f0, lambda f: f < 1.5 * f.min()) * b.decay(passed, 11.0, 0.03)
    return b.noise(lambda f: _bump(f, 1700 * b.pitch, 0.55)) + 1.3 * drops


def _rain(b: _Burst) -> np.ndarray:
    patter = 0.4 + np.square(b.rng.standard_normal(len(b.t), dtype=np.float32))
    return b.noise(lambda f: _bump(f, 4800 * b.pitch, 0.7)) * patter


def _train(b: _Burst) -> np.ndarray:
    _, passed = b.beats(1.9)
    second = np.where(passed > 0.3, passed - 0.3, 1)
    clack = b.decay(passed, 1.9, 0.035) + b.decay(second, 1.9, 0.035)
    rumble = b.noise(lambda f: _bump(f, 110 * b.pitch, 0.6) + 0.25 * _bump(f, 900 * b.pitch, 0.5))
    return rumble + 2.5 * clack * b.noise(lambda f: _bump(f, 900 * b.pitch, 0.7))


def _engine(b: _Burst) -> np.ndarray:
    f0 = 62 * b.pitch * (1 + 0.06 * b.swing(0.5) + 0.02 * b.swing(3.0))
    flutter = 1 + 0.3 * b.swing(9.0)
    hum = b.tone(f0, lambda f: 1 / f + 0.004 * _bump(f, 500, 0.5)) * 62
    return (flutter * hum + 0.35 * b.noise(lambda f: _bump(f, 330, 0.7))).astype(np.float32)


def _alarm(b: _Burst) -> np.ndarray:
    _, passed = b.beats(4.5)
    return b.tone(2500 * b.pitch, lambda f: 1 / f) * (passed < 0.6)


def _siren(b: _Burst) -> np.ndarray:
    f0 = 900 * b.pitch * 2.0 ** (0.45 * b.swing(1.4))
    return b.tone(f0, lambda f: f**-1.3)


def _clock(b: _Burst) -> np.ndarray:
    tick, passed = b.beats(3.4)
    high = b.noise(lambda f: _bump(f, 3400 * b.pitch, 0.12))
    low = b.noise(lambda f: _bump(f, 2400 * b.pitch, 0.12))
    return np.where(tick % 2, low, high) * b.decay(passed, 3.4, 0.02)


# In AudioSet's index order.
GENERATORS: dict[str, Callable[[_Burst], np.ndarray]] = {
    "Speech": _speech,
    "Walk, footsteps": _footsteps,
    "Dog": _dog,
    "Bird": _bird,
    "Music": _music,
    "Bell": _bell,
    "Wind": _wind,
    "Water": _water,
    "Rain": _rain,
    "Train": _train,
    "Engine": _engine,
    "Alarm": _alarm,
    "Siren": _siren,
    "Clock": _clock,
}


def render(
    event: str, rng: np.random.Generator, voice: Voice, seconds: float, sample_rate: int
) -> np.ndarray:
    """One burst of `event`: (round(seconds * sample_rate),) float32 of RMS 1, its ends faded."""
    length = round(seconds * sample_rate)
    wave = GENERATORS[event](_Burst(rng, voice, length, sample_rate)).astype(np.float32)
    fade = min(int(FADE_SECONDS * sample_rate), length // 2)
    fade_ends(wave, np.linspace(0, 1, fade, dtype=np.float32))
    return wave / np.float32(np.sqrt(np.mean(np.square(wave))) + 1e-9)
