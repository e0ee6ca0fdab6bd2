"""Deep scattering spectrum of order two (J. Andén and S. Mallat, 2014), by FFT.

    U1 = |x * psi_1|    S1 = U1 * phi    S2 = ||x * psi_1| * psi_2| * phi

psi are Morlet wavelets, Q per octave (8 in the first order, 1 in the second); phi is a Gaussian
low-pass filter of about T samples. Frequencies are in cycles per sample of the waveform. Filtered
signals are subsampled by 2^j (`Wavelet.rate` is j), as their bandwidth allows.

Kymatio has the same transform, but its public modules (0.3.0) fail to import with SciPy 1.17; a
test compares the two where Kymatio is installed.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Q1, Q2 = 8, 1
CROSSING = math.sqrt(0.5)  # value, relative to its peak, where a wavelet meets the next
PHI_WIDTH = 0.1  # std of phi in frequency, times T
CUTOFF = 5  # stds of a Gaussian in frequency, beyond which it counts as zero
PADDING = 5  # times T, at each end: three stds of phi in time


@dataclass(frozen=True)
class Wavelet:
    """A Morlet wavelet: a Gaussian in frequency, minus another at 0 so that its mean is 0."""

    centre: float  # cycles per sample
    width: float  # std in frequency

    @property
    def rate(self) -> int:
        """j: the filtered signal can be subsampled by 2^j."""
        return math.floor(-math.log2(min(0.5, self.centre + CUTOFF * self.width))) - 1

    def __call__(self, frequency: np.ndarray) -> np.ndarray:
        """Its Fourier transform, real and float64; in time its modulus sums to 1."""

        def bump(f: Any, centre: float) -> Any:  # periodic
            return sum(_gauss(f + turns - centre, self.width) for turns in (-1, 0, 1))

        correction = bump(0.0, self.centre) / bump(0.0, 0.0)
        time = np.linspace(-8, 8, 4001)  # in stds of the envelope
        carrier = np.exp(1j * time * self.centre / self.width) - correction
        total = (_gauss(time, 1) * np.abs(carrier)).sum() / _gauss(time, 1).sum()
        return (bump(frequency, self.centre) - correction * bump(frequency, 0.0)) / total


@functools.cache
def wavelets(scale: int, q: int) -> tuple[Wavelet, ...]:
    """The wavelets of one order for T = `scale`, from the highest frequency down.

    q per octave with a constant ratio of width to centre, as long as they are wider than phi; below
    these, q - 1 more of phi's width at equal distances.
    """
    centre, min_width = max(1 / (1 + 2 ** (3 / q)), 0.35), PHI_WIDTH / scale
    step = 2 ** (-1 / q)
    relative = (1 - step) / (1 + step) / math.sqrt(2 * math.log(1 / CROSSING))
    bank = []
    while centre * relative > min_width:
        bank.append(Wavelet(centre, centre * relative))
        centre *= step
    lowest = bank[-1].centre
    return (*bank, *(Wavelet(lowest * (1 - k / q), min_width) for k in range(1, q)))


@functools.cache
def paths(scale: int) -> tuple[tuple[int, ...], ...]:
    """The coefficients: (i,) of the first order, then (i, k) of the second.

    i and k are indices into `wavelets` of the two orders. The second order has the pairs whose
    second wavelet has the lower sampling rate.
    """
    first, second = wavelets(scale, Q1), wavelets(scale, Q2)
    pairs = [
        (i, k)
        for i in range(len(first))
        for k in range(len(second))
        if second[k].rate > first[i].rate
    ]
    return (*((i,) for i in range(len(first))), *pairs)


def scattering(waveform: jax.Array, scale: int, hop: int, offset: float) -> jax.Array:
    """(B, L) float32 -> (B, 1 + L // hop, len(paths(scale))) float32, centred every `hop` samples.

    The second order is divided by its first-order coefficient plus `offset`. T is `scale`; `hop` is
    a power of 2, at most T / 2. The waveform is reflected at its ends.
    """
    length, pad = waveform.shape[1], PADDING * scale
    from scipy.fft import next_fast_len  # not above: slow, and other front ends do without

    size = 2 * hop * next_fast_len(-(-(length + 2 * pad) // (2 * hop)))
    padded = jnp.pad(waveform, ((0, 0), (pad, size - pad - length)), mode="reflect")
    kept = slice(pad // hop, pad // hop + 1 + length // hop)
    # One clip at a time: the first order alone takes several times its memory.
    both = jax.lax.map(lambda x: _scatter(x, scale, hop), padded)[:, :, kept]
    rows = {path: row for row, path in enumerate(paths(scale))}
    parents = [rows[path[:1]] for path in rows if len(path) == 2]
    count = len(rows) - len(parents)
    second = both[:, count:] / (both[:, parents] + offset)
    return jnp.moveaxis(jnp.concatenate([both[:, :count], second], axis=1), 1, 2)


def _scatter(waveform: jax.Array, scale: int, hop: int) -> jax.Array:
    """A padded waveform (N,) -> both orders (len(paths), N / hop), the second not yet divided."""
    size = len(waveform)

    def moduli(spectra: jax.Array, bank: Sequence[Wavelet], rate: int) -> jax.Array:
        """Spectra (i, N / 2^rate) of the moduli, for one signal and i wavelets or the reverse."""
        frequencies = np.fft.fftfreq(size >> rate) / 2**rate
        filters = np.array([wavelet(frequencies) for wavelet in bank], np.float32)
        return jnp.fft.fft(jnp.abs(jnp.fft.ifft(_subsample(spectra, size >> rate) * filters)))

    low_pass = np.float32(_gauss(np.fft.fftfreq(size // hop) / hop, PHI_WIDTH / scale))

    def average(spectra: jax.Array) -> jax.Array:
        return jnp.maximum(jnp.fft.ifft(_subsample(spectra, size // hop) * low_pass).real, 0)

    order: list[tuple[int, ...]] = []  # the paths of `coefficients`
    coefficients, groups = [], []
    first = wavelets(scale, Q1)
    spectrum = jnp.fft.fft(waveform)[None]
    for rate in sorted({wavelet.rate for wavelet in first}):
        indices = [i for i, wavelet in enumerate(first) if wavelet.rate == rate]
        spectra = moduli(spectrum, [first[i] for i in indices], rate)
        groups.append((rate, indices, spectra))
        order += [(i,) for i in indices]
        coefficients.append(average(spectra))
    for k, wavelet in enumerate(wavelets(scale, Q2)):
        faster = [(indices, x) for rate, indices, x in groups if rate < wavelet.rate]
        if faster:
            spectra = jnp.concatenate([_subsample(x, size >> wavelet.rate) for _, x in faster])
            order += [(i, k) for indices, _ in faster for i in indices]
            coefficients.append(average(moduli(spectra, [wavelet], wavelet.rate)))
    return jnp.concatenate(coefficients)[np.array([order.index(path) for path in paths(scale)])]


def _subsample(spectra: jax.Array, count: int) -> jax.Array:
    """Spectra (i, n) of signals -> spectra (i, count) of every n / count-th sample of them."""
    size, half = spectra.shape[1], count // 2
    if count == size:
        return spectra
    return jnp.concatenate([spectra[:, :half], spectra[:, -half:]], axis=1) * (count / size)


def _gauss(x: Any, width: float) -> Any:
    return np.exp(-(x**2) / (2 * width**2))
