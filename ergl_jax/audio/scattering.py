"""Deep scattering spectrum of order two (J. Andén and S. Mallat, 2014), by FFT.

    U1 = |x * psi_1|    S1 = U1 * phi    S2 = ||x * psi_1| * psi_2| * phi

psi are Morlet wavelets, Q of them an octave (8 in the first order, 1 in the second), phi is a
Gaussian of about T samples. Frequencies are in cycles a sample of the waveform. What is filtered
is sampled no more often than it needs: by 2^j, for which `Wavelet.rate` tells j.

Kymatio has the same, but its public modules (0.3.0) import what SciPy 1.17 has not; a test compares
the two where it is installed.
"""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft

Q1, Q2 = 8, 1
HALF = math.sqrt(0.5)  # of its peak: what a wavelet has where the next one begins
PHI_WIDTH = 0.1  # of phi's Gaussian in frequency, times T
CUT = 5  # standard deviations of a Gaussian in frequency, beyond which nothing is
PADDED = 5  # times T, at each end: three standard deviations of phi in time


@dataclass(frozen=True)
class Wavelet:
    """A Morlet wavelet: a Gaussian in frequency, less what makes its mean 0."""

    centre: float  # cycles a sample
    width: float  # standard deviation

    @property
    def rate(self) -> int:
        """j: what it lets through can be sampled every 2^j."""
        return math.floor(-math.log2(min(0.5, self.centre + CUT * self.width))) - 1

    def __call__(self, frequency: np.ndarray) -> np.ndarray:
        """Its transform, real, 0 at 0; in time its modulus sums to 1. float64."""

        def bump(f: np.ndarray | float, centre: float) -> np.ndarray | float:
            return sum(_gauss(f + turns - centre, self.width) for turns in (-1, 0, 1))

        less = bump(0.0, self.centre) / bump(0.0, 0.0)
        time = np.linspace(-8, 8, 4001)  # in standard deviations of the envelope
        turning = np.exp(1j * time * self.centre / self.width) - less
        total = (_gauss(time, 1) * np.abs(turning)).sum() / _gauss(time, 1).sum()
        return (bump(frequency, self.centre) - less * bump(frequency, 0.0)) / total


@functools.cache
def wavelets(scale: int, q: int) -> tuple[Wavelet, ...]:
    """The wavelets of one order for T = scale, from the highest down.

    q an octave, each as wide as q asks for, while that is wider than phi; below, q - 1 more of
    phi's width at equal distances.
    """
    centre, least = max(1 / (1 + 2 ** (3 / q)), 0.35), PHI_WIDTH / scale
    step = 2 ** (-1 / q)
    relative = (1 - step) / (1 + step) / math.sqrt(2 * math.log(1 / HALF))
    found = []
    while centre * relative > least:
        found.append(Wavelet(centre, centre * relative))
        centre *= step
    lowest = found[-1].centre
    return (*found, *(Wavelet(lowest * (1 - k / q), least) for k in range(1, q)))


@functools.cache
def paths(scale: int) -> tuple[tuple[int, ...], ...]:
    """The coefficients: (i,) of the first order, then (i, k) of the second.

    i and k count `wavelets` of the two orders. The second order has those pairs in which the
    second wavelet is the slower, by what both can be sampled at.
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

    The second order is divided by the first (plus `offset`) that it comes from. T is `scale`; hop
    is a power of 2, at most T / 2. Reflected at its ends as often as it takes.
    """
    length, pad = waveform.shape[1], PADDED * scale
    size = 2 * hop * scipy.fft.next_fast_len(-(-(length + 2 * pad) // (2 * hop)))
    padded = jnp.pad(waveform, ((0, 0), (pad, size - pad - length)), mode="reflect")
    kept = slice(pad // hop, pad // hop + 1 + length // hop)
    # A clip at a time: its fastest wavelets alone are several times its size.
    found = jax.lax.map(lambda x: _scattered(x, scale, hop), padded)[:, :, kept]
    rows = {path: row for row, path in enumerate(paths(scale))}
    first = [rows[path[:1]] for path in rows if len(path) == 2]
    count = len(rows) - len(first)
    second = found[:, count:] / (found[:, first] + offset)
    return jnp.moveaxis(jnp.concatenate([found[:, :count], second], axis=1), 1, 2)


def _scattered(waveform: jax.Array, scale: int, hop: int) -> jax.Array:
    """A padded waveform (N,) -> both orders (len(paths), N / hop), the second as it is."""
    size = len(waveform)

    def moduli(spectra: jax.Array, bank: list[Wavelet], rate: int) -> jax.Array:
        """Of one signal by many wavelets, or of many by one: transforms (i, N / 2^rate)."""
        frequencies = np.fft.fftfreq(size >> rate) / 2**rate
        filters = np.float32([each(frequencies) for each in bank])
        return jnp.fft.fft(jnp.abs(jnp.fft.ifft(_sampled(spectra, size >> rate) * filters)))

    low = np.float32(_gauss(np.fft.fftfreq(size // hop) / hop, PHI_WIDTH / scale))

    def averaged(spectra: jax.Array) -> jax.Array:
        return jnp.maximum(jnp.fft.ifft(_sampled(spectra, size // hop) * low).real, 0)

    done, found = [], []  # paths, and their coefficients
    first = wavelets(scale, Q1)
    transform, groups = jnp.fft.fft(waveform)[None], []
    for rate in sorted({each.rate for each in first}):
        mine = [i for i, each in enumerate(first) if each.rate == rate]
        spectra = moduli(transform, [first[i] for i in mine], rate)
        groups.append((rate, mine, spectra))
        done += [(i,) for i in mine]
        found.append(averaged(spectra))
    for k, each in enumerate(wavelets(scale, Q2)):
        faster = [(mine, spectra) for rate, mine, spectra in groups if rate < each.rate]
        if faster:
            spectra = jnp.concatenate([_sampled(x, size >> each.rate) for _, x in faster])
            done += [(i, k) for mine, _ in faster for i in mine]
            found.append(averaged(moduli(spectra, [each], each.rate)))
    return jnp.concatenate(found)[np.array([done.index(path) for path in paths(scale)])]


def _sampled(spectrum: jax.Array, count: int) -> jax.Array:
    """Transforms (i, n) of signals -> (i, count), of every n / count-th of their samples."""
    size, half = spectrum.shape[1], count // 2
    if count == size:
        return spectrum
    return jnp.concatenate([spectrum[:, :half], spectrum[:, -half:]], axis=1) * (count / size)


def _gauss(x: np.ndarray | float, width: float) -> np.ndarray | float:
    return np.exp(-(x**2) / (2 * width**2))
