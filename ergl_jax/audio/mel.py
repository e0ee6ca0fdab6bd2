"""Mel bands of framed waveforms, computed as suits the device.

Shapes: B waveforms of P samples, F frames, M mel bands.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ergl_jax.audio.front_end import FrontEnd

# Samples in the frames that a CPU transforms at a time. From 256 KiB of float64 on, XLA splits each
# operation over all cores, which costs more than it saves.
BLOCK_SAMPLES = 24 * 1024
BAND_GROUPS = 4  # on CPU, each group of mel bands is multiplied with its own FFT bins only
COSINE_WINDOWS = {"hann": 0.5, "hamming": 0.54}  # name -> a of a + (1 - a) cos
# Slaney's mel scale: linear below LINEAR_HZ, logarithmic above.
LINEAR_HZ, HZ_PER_MEL = 1000.0, 200.0 / 3
LINEAR_MELS, LOG_STEP = LINEAR_HZ / HZ_PER_MEL, np.log(6.4) / 27.0

# Window and filters equal librosa's bit for bit (by test). Not by librosa, whose import compiles
# with Numba: slow, and an error where the home directory is read-only.


def window(front_end: FrontEnd) -> np.ndarray:
    """The window (n_fft,) float64; a shorter one is centred between zeros."""
    before = (front_end.n_fft - front_end.span) // 2
    return np.pad(_window(front_end), (before, front_end.n_fft - front_end.span - before))


def _window(front_end: FrontEnd) -> np.ndarray:
    """The window (span,) without zeros around it."""
    name, _, symmetric = front_end.window.partition("_")
    a, span = COSINE_WINDOWS[name], front_end.span
    angles = np.linspace(-np.pi, np.pi, span if symmetric else span + 1)[:span]
    return a + (1.0 - a) * np.cos(angles)


def librosa_arguments(front_end: FrontEnd) -> dict[str, Any] | None:
    """The arguments of `librosa.feature.melspectrogram` for the same bands of a waveform, for JSON.

    A symmetric window is a list of its values; with frames "centred_whole" librosa has one frame
    more, the last. None for a front end that isn't a spectrogram of the whole waveform.
    """
    if not front_end.is_spectrogram:
        return None
    name, _, symmetric = front_end.window.partition("_")
    return {
        "sr": front_end.sample_rate,
        "n_fft": front_end.n_fft,
        "hop_length": front_end.hop,
        "win_length": front_end.span,
        "window": _window(front_end).tolist() if symmetric else name,
        "center": front_end.frames != "inside",
        "pad_mode": "reflect",
        "power": 1.0 if front_end.magnitude else 2.0,
        "n_mels": front_end.n_mels,
        "fmin": front_end.fmin,
        "fmax": front_end.fmax,
        "htk": False,
        "norm": "slaney",
    }


@functools.cache
def mel_filters(front_end: FrontEnd) -> np.ndarray:
    """The Slaney mel filters (n_fft // 2 + 1, M) float32: triangles of equal area."""
    edges = mel_edges(front_end)[:, None]  # (M + 2, 1)
    bins = np.fft.rfftfreq(front_end.n_fft, 1.0 / front_end.sample_rate)  # Hz
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]  # (M, 1)
    rising = -(low - bins) / (centre - low)
    falling = (high - bins) / (high - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    return (triangles * (2.0 / (high - low))).astype(np.float32).T


def mel_edges(front_end: FrontEnd) -> np.ndarray:
    """The edges (M + 2,) of the mel bands in Hz, equally far apart in mel; inner ones are peaks."""
    mels = np.linspace(_mel(front_end.fmin), _mel(front_end.fmax), front_end.n_mels + 2)
    edges = HZ_PER_MEL * mels
    above = mels >= LINEAR_MELS
    edges[above] = LINEAR_HZ * np.exp(LOG_STEP * (mels[above] - LINEAR_MELS))
    return edges


def _mel(hz: float) -> float:
    if hz < LINEAR_HZ:
        return hz / HZ_PER_MEL
    return LINEAR_MELS + np.log(hz / LINEAR_HZ) / LOG_STEP


# Not a float32 FFT on any device: in quiet bands under loud ones it is up to 6e-4 dB off.
@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def mel_bands(padded: jax.Array, front_end: FrontEnd) -> jax.Array:
    """Padded waveforms (B, P) -> mel bands of |X|^2, or of |X| (B, F, M), float32."""
    return jax.lax.platform_dependent(
        padded,
        cpu=functools.partial(by_fft, front_end=front_end),
        default=functools.partial(by_convolution, front_end=front_end),
    )


@mel_bands.defjvp
def _mel_bands_jvp(front_end: FrontEnd, primals: tuple, tangents: tuple) -> tuple:
    # JAX would differentiate `by_fft` outside of its float64.
    return jax.jvp(functools.partial(by_convolution, front_end=front_end), primals, tangents)


def by_convolution(padded: jax.Array, front_end: FrontEnd) -> jax.Array:
    """For GPU and TPU, where matrix products are cheap and float64 is slow; as PANNs' own code."""
    spectrum = jax.lax.conv_general_dilated(
        padded[:, :, None],  # (B, P, 1)
        jnp.asarray(_kernels(front_end)),
        window_strides=(front_end.hop,),
        padding="VALID",
        dimension_numbers=("NWC", "WIO", "NWC"),
        precision=jax.lax.Precision.HIGHEST,  # the default is below float32
    )  # (B, F, 2 * (n_fft // 2 + 1))
    real, imaginary = jnp.split(spectrum, 2, axis=-1)
    power = real**2 + imaginary**2
    values = jnp.sqrt(power) if front_end.magnitude else power
    return jnp.matmul(values, mel_filters(front_end), precision=jax.lax.Precision.HIGHEST)


def by_fft(padded: jax.Array, front_end: FrontEnd) -> jax.Array:
    """For CPU: an FFT in float64, of so few frames at a time that they fit the cache."""
    batch, n_fft, hop = padded.shape[0], front_end.n_fft, front_end.hop
    frames, hops = 1 + (padded.shape[1] - n_fft) // hop, -(-n_fft // hop)  # hops in a frame
    each = min(frames, max(1, BLOCK_SAMPLES // n_fft // batch))
    blocks = -(-frames // each)
    missing = hop * (blocks * each + hops - 1) - padded.shape[1]
    padded = jnp.pad(padded, ((0, 0), (0, max(0, missing))))

    def block(start: jax.Array) -> jax.Array:
        rows = jax.lax.dynamic_slice_in_dim(padded, start, hop * (each + hops - 1), axis=1)
        rows = rows.reshape(batch, each + hops - 1, hop)
        parts = [rows[:, at : at + each] for at in range(hops)]
        framed = jnp.concatenate(parts, axis=-1)[..., :n_fft]  # (B, each, n_fft)
        with jax.enable_x64(True):
            spectrum = jnp.fft.rfft(framed.astype(jnp.float64) * window(front_end))
            power = spectrum.real**2 + spectrum.imag**2
            values = (jnp.sqrt(power) if front_end.magnitude else power).astype(jnp.float32)
        bands = [values[..., bins] @ filters for bins, filters in _banded_filters(front_end)]
        return jnp.concatenate(bands, axis=-1)  # (B, each, M)

    starts = np.arange(blocks, dtype=np.int32) * (hop * each)
    mel = jnp.moveaxis(jax.lax.map(block, starts), 0, 1)  # (B, blocks, each, M)
    return mel.reshape(batch, blocks * each, -1)[:, :frames]


@functools.cache
def _banded_filters(front_end: FrontEnd) -> list[tuple[slice, np.ndarray]]:
    """`mel_filters` in groups of bands: the FFT bins that each needs, and its filters there."""
    groups = []
    for filters in np.array_split(mel_filters(front_end), BAND_GROUPS, axis=1):
        bins = np.flatnonzero(filters.any(axis=1))
        used = slice(bins[0], bins[-1] + 1)
        groups.append((used, filters[used]))
    return groups


@functools.cache
def _kernels(front_end: FrontEnd) -> np.ndarray:
    """The windowed Fourier transform as a convolution: (n_fft, 1, 2 * (n_fft // 2 + 1)) float32.

    Real parts, then imaginary ones. Computed in float64, so that each is rounded once.
    """
    n_fft = front_end.n_fft
    # The product modulo n_fft, so that no large angle loses digits.
    turns = np.outer(np.arange(n_fft), np.arange(n_fft // 2 + 1)) % n_fft / n_fft
    parts = np.concatenate([np.cos(2 * np.pi * turns), -np.sin(2 * np.pi * turns)], axis=1)
    return (window(front_end)[:, None] * parts).astype(np.float32)[:, None, :]
