"""Waveform to log-mel spectrogram: the front ends and one jitted, batched function."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import librosa
import numpy as np

from ergl_jax.errors import InputError

MIN_POWER = 1e-10  # the floor under the logarithm: silence is -100 dB


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
        raise InputError(f"no front end {name!r}: choose one of {', '.join(FRONT_ENDS)}")
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
    # A strided convolution, as in PANNs' own code: in quiet bands under loud ones a float32 FFT
    # is up to 6e-4 dB off, this 1.4e-4 (benchmarks/RESULTS.md, "Equivalence").
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
    power = real**2 + imaginary**2
    mel = jnp.matmul(
        power, mel_filters(front_end), precision=jax.lax.Precision.HIGHEST
    )  # (B, F, M)
    return 10.0 * jnp.log10(jnp.maximum(mel, MIN_POWER))
