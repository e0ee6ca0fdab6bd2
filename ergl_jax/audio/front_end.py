"""Waveform to log-mel spectrogram: the front ends and one jitted, batched function."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import librosa
import numpy as np

from ergl_jax.errors import InputError

MIN_POWER = 1e-10  # the floor under the logarithm: silence is -100 dB
BLOCK_FRAMES = 64  # of all clips, that `log_mel` transforms at a time on CPU
BAND_GROUPS = 4  # in which it takes the mel bands there, each of its own FFT bins alone


@dataclass(frozen=True)
class FrontEnd:
    """Everything that decides a log-mel spectrogram; `window`, `n_fft` and `hop` are in samples."""

    name: str
    sample_rate: int  # Hz
    window: str  # "hann" or "hamming", periodic
    n_fft: int
    hop: int
    n_mels: int
    fmin: float  # Hz
    fmax: float  # Hz

    def num_samples(self, seconds: float) -> int:
        """Samples in a clip of this duration, to the nearest integer."""
        return round(seconds * self.sample_rate)

    def num_frames(self, seconds: float) -> int:
        """Frames F that `log_mel` makes of a clip of this duration (10 s: 1001)."""
        return 1 + self.num_samples(seconds) // self.hop


FRONT_ENDS = {
    front_end.name: front_end
    for front_end in (
        # The ERGL paper, section 3.1.
        FrontEnd("paper", 32000, "hamming", 1024, 320, 64, 50.0, 14000.0),
        # What the published 16 kHz Cnn14 of PANNs was trained with (arXiv 1912.10211).
        FrontEnd("panns_16k", 16000, "hann", 512, 160, 64, 50.0, 8000.0),
        # The same paper's Cnn14, Cnn10 and Cnn6, at 32 kHz.
        FrontEnd("panns_32k", 32000, "hann", 1024, 320, 64, 50.0, 14000.0),
    )
}


def get_front_end(name: str) -> FrontEnd:
    """The front end of this name; InputError lists the names where there is none."""
    if name not in FRONT_ENDS:
        raise InputError(f"front_end={name!r} is not one of: {', '.join(FRONT_ENDS)}")
    return FRONT_ENDS[name]


def window(front_end: FrontEnd) -> np.ndarray:
    """The periodic window (n_fft,), float64."""
    return librosa.filters.get_window(front_end.window, front_end.n_fft, fftbins=True)


@functools.cache
def mel_filters(front_end: FrontEnd) -> np.ndarray:
    """The Slaney mel filters (n_fft // 2 + 1, M), float32."""
    return librosa.filters.mel(
        sr=front_end.sample_rate,
        n_fft=front_end.n_fft,
        n_mels=front_end.n_mels,
        fmin=front_end.fmin,
        fmax=front_end.fmax,
    ).T.astype(np.float32)


@functools.cache
def _banded_filters(front_end: FrontEnd) -> tuple[tuple[slice, np.ndarray], ...]:
    """`mel_filters` by groups of bands: the FFT bins that each needs, and its filters there."""
    groups = []
    for filters in np.array_split(mel_filters(front_end), BAND_GROUPS, axis=1):
        bins = np.flatnonzero(filters.any(axis=1))
        mine = slice(bins[0], bins[-1] + 1)
        groups.append((mine, filters[mine]))
    return tuple(groups)


@functools.cache
def _kernels(front_end: FrontEnd) -> np.ndarray:
    """The windowed Fourier transform as a convolution: (n_fft, 1, 2 * (n_fft // 2 + 1)) float32.

    Real parts, then imaginary ones. Computed in float64, so each is rounded once.
    """
    n_fft = front_end.n_fft
    # The product modulo n_fft, so that no large angle loses digits.
    turns = np.outer(np.arange(n_fft), np.arange(n_fft // 2 + 1)) % n_fft / n_fft
    parts = np.concatenate([np.cos(2 * np.pi * turns), -np.sin(2 * np.pi * turns)], axis=1)
    return (window(front_end)[:, None] * parts).astype(np.float32)[:, None, :]


@functools.partial(jax.jit, static_argnames="front_end")
def log_mel(waveform: jax.Array, front_end: FrontEnd) -> jax.Array:
    """Log-mel spectrograms of a batch of mono waveforms (section 3.1).

    Centred frames with reflect padding, power spectrum, Slaney mel filters, and
    10 log10(max(power, 1e-10)) with no limit below the loudest bin. Each new shape compiles once.
    Not for jax.vmap, nor for a batch that the partitioner shares out: jax.shard_map does that.

    Args:
      waveform: (B, L) floating point at the front end's sample rate, full scale 1.
      front_end: which front end.

    Returns:
      (B, F, M) float32 in dB, F = 1 + L // hop.

    Raises:
      InputError: not a floating-point (B, L), or L <= n_fft / 2, which reflection can't pad.
    """
    if waveform.ndim != 2 or not jnp.issubdtype(waveform.dtype, jnp.floating):
        raise InputError(
            f"log_mel takes floating-point waveforms (batch, samples), "
            f"not {waveform.dtype} {waveform.shape}"
        )
    length, n_fft = waveform.shape[1], front_end.n_fft
    if length <= n_fft // 2:
        raise InputError(
            f"a waveform of {length} samples is too short for front end {front_end.name!r}: "
            f"pad it to at least {n_fft // 2 + 1} samples"
        )
    half = n_fft // 2
    padded = jnp.pad(waveform.astype(jnp.float32), ((0, 0), (half, half)), mode="reflect")
    mel = _mel_power(padded, front_end)
    return 10.0 * jnp.log10(jnp.maximum(mel, MIN_POWER))


# A float32 FFT is no choice anywhere: in quiet bands under loud ones it is up to 6e-4 dB off.
@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _mel_power(padded: jax.Array, front_end: FrontEnd) -> jax.Array:
    """The padded waveforms (B, L + n_fft) -> mel power (B, F, M), as suits where it runs."""
    by_fft, by_convolution = (
        functools.partial(way, front_end=front_end) for way in (_by_fft, _by_convolution)
    )
    return jax.lax.platform_dependent(padded, cpu=by_fft, default=by_convolution)


@_mel_power.defjvp
def _mel_power_jvp(front_end: FrontEnd, primals: tuple, tangents: tuple) -> tuple:
    # JAX would differentiate `_by_fft` outside of its float64.
    return jax.jvp(functools.partial(_by_convolution, front_end=front_end), primals, tangents)


def _by_convolution(padded: jax.Array, front_end: FrontEnd) -> jax.Array:
    """For GPU and TPU, where products are cheap and float64 is dear: sums like PANNs' own."""
    # Accelerators compute at lower precision than float32 unless told otherwise.
    spectrum = jax.lax.conv_general_dilated(
        padded[:, :, None],  # (B, L + n_fft, 1)
        _kernels(front_end),
        window_strides=(front_end.hop,),
        padding="VALID",
        dimension_numbers=("NWC", "WIO", "NWC"),
        precision=jax.lax.Precision.HIGHEST,
    )  # (B, F, 2 * (n_fft // 2 + 1))
    real, imaginary = jnp.split(spectrum, 2, axis=-1)
    return jnp.matmul(
        real**2 + imaginary**2, mel_filters(front_end), precision=jax.lax.Precision.HIGHEST
    )


def _by_fft(padded: jax.Array, front_end: FrontEnd) -> jax.Array:
    """For CPU: an FFT in float64, in turns of few enough frames that the cache holds them."""
    batch, n_fft, hop = padded.shape[0], front_end.n_fft, front_end.hop
    frames, hops = 1 + (padded.shape[1] - n_fft) // hop, -(-n_fft // hop)  # a frame spans `hops`
    each = min(frames, max(1, BLOCK_FRAMES // batch))
    turns = -(-frames // each)
    missing = hop * (turns * each + hops - 1) - padded.shape[1]
    padded = jnp.pad(padded, ((0, 0), (0, max(0, missing))))

    def turn(start: jax.Array) -> jax.Array:
        rows = jax.lax.dynamic_slice_in_dim(padded, start, hop * (each + hops - 1), axis=1)
        rows = rows.reshape(batch, each + hops - 1, hop)
        parts = [rows[:, at : at + each] for at in range(hops)]
        framed = jnp.concatenate(parts, axis=-1)[..., :n_fft]  # (B, each, n_fft)
        with jax.enable_x64(True):
            spectrum = jnp.fft.rfft(framed.astype(jnp.float64) * window(front_end))
            power = (spectrum.real**2 + spectrum.imag**2).astype(jnp.float32)
        bands = [power[..., bins] @ filters for bins, filters in _banded_filters(front_end)]
        return jnp.concatenate(bands, axis=-1)  # (B, each, M)

    starts = np.arange(turns, dtype=np.int32) * (hop * each)
    mel = jnp.moveaxis(jax.lax.map(turn, starts), 0, 1)  # (B, turns, each, M)
    return mel.reshape(batch, turns * each, -1)[:, :frames]
