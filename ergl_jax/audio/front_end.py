"""Waveform to features: the front ends by name and one jitted, batched function, `log_mel`."""

import dataclasses
import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import librosa
import numpy as np

from ergl_jax.audio import scattering
from ergl_jax.errors import InputError

MIN_POWER = 1e-10  # the floor under the logarithm in dB: silence is -100
# In the frames that `log_mel` transforms at a time on CPU. From 256 KiB in float64 on, XLA shares
# each operation out to all cores, which costs more than it saves.
BLOCK_SAMPLES = 24 * 1024
BAND_GROUPS = 4  # in which it takes the mel bands there, each of its own FFT bins alone


@dataclass(frozen=True)
class FrontEnd:
    """Everything that decides the features of a waveform; lengths are in samples.

    The fields with defaults came later: `numbers` leaves them out where they say nothing new.
    """

    name: str
    sample_rate: int  # Hz
    # "hann" or "hamming", periodic; "hamming_symmetric"; "morlet": no mel bands but the scattering
    # coefficients of scattering.py, n_fft being its T and n_mels their number.
    window: str
    n_fft: int
    hop: int
    n_mels: int
    fmin: float  # Hz
    fmax: float  # Hz
    win_length: int = 0  # of the window, in the middle of n_fft samples; 0: n_fft
    # "centred": frames around 0, hop, 2 hop..., reflected at the ends; "centred_whole": the same
    # without the last, so a frame for each whole hop; "inside": frames that lie in the waveform.
    frames: str = "centred"
    magnitude: bool = False  # the mel bands of |X|, not of |X|^2
    offset: float = 0.0  # ln(x + offset); 0: 10 log10(max(x, 1e-10)), dB
    channel: str = "mean"  # of a recording with several: their "mean", or the "left"
    # Cuts a waveform into segments of so many samples, one every so many; their frames follow one
    # another. What the last segment lacks, win_length - hop at most, is silence. 0: not cut.
    segment: int = 0
    segment_hop: int = 0

    @property
    def span(self) -> int:
        """Samples that a frame's window covers."""
        return self.win_length or self.n_fft

    @property
    def decibels(self) -> float:
        """What a unit of the features is in dB: 1, or 8.7 for the logarithm of a magnitude."""
        if not self.offset:
            return 1.0
        return (20 if self.magnitude else 10) / math.log(10)

    @property
    def is_scattering(self) -> bool:
        """Whether its features are scattering coefficients."""
        return self.window == "morlet"

    @property
    def is_spectrogram(self) -> bool:
        """Whether its features are mel bands over all of a waveform's time, in order."""
        return not self.is_scattering and not self.segment

    @property
    def first_order(self) -> int:
        """How many of its features, the first ones, are of scattering's first order; else all."""
        if not self.is_scattering:
            return self.n_mels
        return sum(len(path) == 1 for path in scattering.paths(self.n_fft))

    @property
    def least_samples(self) -> int:
        """The shortest waveform that `log_mel` takes."""
        if self.segment:
            return self.segment - (self.span - self.hop)
        if self.frames == "inside":
            return self.span
        return max(self.n_fft // 2 + 1, self.hop if self.frames == "centred_whole" else 0)

    def numbers(self) -> dict[str, str | int | float | bool]:
        """Its fields but those that have their default: what is kept of it, in JSON."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }

    def num_samples(self, seconds: float) -> int:
        """Samples in a clip of this duration, to the nearest integer."""
        return round(seconds * self.sample_rate)

    def num_segments(self, seconds: float) -> int:
        """Segments that a clip of this duration is cut into (`mltf`, 10 s: 13), or 1."""
        return self._segments(self.num_samples(seconds)) if self.segment else 1

    def num_frames(self, seconds: float) -> int:
        """Frames F that `log_mel` makes of a clip of this duration (`paper`, 10 s: 1001)."""
        length = self.num_samples(seconds)
        if self.segment:
            return self._segments(length) * self._frames(self.segment)
        return self._frames(length)

    def _segments(self, length: int) -> int:
        return 1 + (length + self.span - self.hop - self.segment) // self.segment_hop

    def _frames(self, length: int) -> int:
        if self.frames == "inside":
            return 1 + (length - self.span) // self.hop
        return length // self.hop + (self.frames == "centred")


# What the published systems of Kong and others take: 10 s make 320 frames.
_KONG = FrontEnd(
    "kong",
    44100,
    "hamming_symmetric",
    2048,
    1376,
    64,
    50.0,
    22050.0,
    frames="inside",
    magnitude=True,
    offset=1e-8,
)
# The baseline system of DCASE 2018, task 1: frames of 40 ms every 20 ms. Centred, 10 s make 501;
# the system takes 500.
_DCASE = FrontEnd(
    "dcase2018",
    48000,
    "hamming",
    2048,
    960,
    40,
    0.0,
    24000.0,
    win_length=1920,
    frames="centred_whole",
    magnitude=True,
    offset=2.0**-52,
)

FRONT_ENDS = {
    front_end.name: front_end
    for front_end in (
        # The ERGL paper, section 3.1.
        FrontEnd("paper", 32000, "hamming", 1024, 320, 64, 50.0, 14000.0),
        # What the published 16 kHz Cnn14 of PANNs was trained with (arXiv 1912.10211).
        FrontEnd("panns_16k", 16000, "hann", 512, 160, 64, 50.0, 8000.0),
        # The same paper's Cnn14, Cnn10 and Cnn6, at 32 kHz.
        FrontEnd("panns_32k", 32000, "hann", 1024, 320, 64, 50.0, 14000.0),
        # CNN from Surrey, RGASC; and from 20 Hz, ABCNN.
        _KONG,
        dataclasses.replace(_KONG, name="kong_20hz", fmin=20.0),
        _DCASE,
        # A reading: the nearest-neighbour filter's 128 bands, of the same frames.
        dataclasses.replace(_DCASE, name="mel128", n_mels=128),
        # A reading: MTL's 64 bands x 500 frames, which are taken to be the same frames.
        dataclasses.replace(_DCASE, name="mtl", n_mels=64),
        # MLTF: 13 segments of 50 frames of a 10 s clip. 40 ms every 20 ms, each frame whole within
        # its segment of 48960 samples, so that they are 50; the spectrum is a reading.
        dataclasses.replace(
            _DCASE,
            name="mltf",
            n_mels=120,
            frames="inside",
            channel="left",
            segment=48960,
            segment_hop=36000,
        ),
        # The wavelet CRNN's, a reading: T = 4096, 86 coefficients of the first order, 459 of the
        # second, every half T.
        FrontEnd(
            "scattering",
            22050,
            "morlet",
            4096,
            2048,
            545,
            0.0,
            11025.0,
            magnitude=True,
            offset=1e-6,
        ),
    )
}


def get_front_end(name: str) -> FrontEnd:
    """The front end of this name; InputError lists the names where there is none."""
    if name not in FRONT_ENDS:
        raise InputError(f"front_end={name!r} is not one of: {', '.join(FRONT_ENDS)}")
    return FRONT_ENDS[name]


def window(front_end: FrontEnd) -> np.ndarray:
    """The window (n_fft,), float64; a shorter one lies in the middle, between zeros."""
    name, _, symmetric = front_end.window.partition("_")
    values = librosa.filters.get_window(name, front_end.span, fftbins=not symmetric)
    return librosa.util.pad_center(values, size=front_end.n_fft)


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
    """The features of a batch of mono waveforms: log-mel spectrograms (section 3.1), or scattering.

    Frames, Fourier transform, Slaney mel filters and the logarithm with no limit below the loudest
    bin, as the front end says. Each new shape compiles once.
    Not for jax.vmap, nor for a batch that the partitioner shares out: jax.shard_map does that.

    Args:
      waveform: (B, L) floating point at the front end's sample rate, full scale 1.
      front_end: which front end.

    Returns:
      (B, F, M) float32, F = front_end.num_frames(L / sample_rate), M = front_end.n_mels; in dB,
      or natural logarithms where the front end has an offset.

    Raises:
      InputError: not a floating-point (B, L) with B >= 1, or L < front_end.least_samples.
    """
    floating = jnp.issubdtype(waveform.dtype, jnp.floating)
    if waveform.ndim != 2 or not waveform.shape[0] or not floating:
        raise InputError(
            f"log_mel takes floating-point waveforms (batch, samples), one or more, "
            f"not {waveform.dtype} {waveform.shape}"
        )
    batch, length = waveform.shape
    if length < front_end.least_samples:
        raise InputError(
            f"a waveform of {length} samples is too short for front end {front_end.name!r}: "
            f"pad it to at least {front_end.least_samples} samples"
        )
    waveform = waveform.astype(jnp.float32)
    if front_end.is_scattering:
        scale, hop, offset = front_end.n_fft, front_end.hop, front_end.offset
        return jnp.log(scattering.scattering(waveform, scale, hop, offset) + offset)
    if front_end.segment:
        waveform = _segments(waveform, front_end)  # (B S, segment)
    mel = _mel(_padded(waveform, front_end), front_end)
    if front_end.frames == "centred_whole":
        mel = mel[:, :-1]
    mel = mel.reshape(batch, -1, front_end.n_mels)
    if front_end.offset:
        return jnp.log(mel + front_end.offset)
    return 10.0 * jnp.log10(jnp.maximum(mel, MIN_POWER))


def _segments(waveform: jax.Array, front_end: FrontEnd) -> jax.Array:
    """(B, L) -> (B S, segment), the segments of each waveform in order."""
    padded = jnp.pad(waveform, ((0, 0), (0, front_end.span - front_end.hop)))
    starts = front_end.segment_hop * np.arange(front_end._segments(waveform.shape[1]))
    parts = [padded[:, start : start + front_end.segment] for start in starts]
    return jnp.stack(parts, axis=1).reshape(-1, front_end.segment)


def _padded(waveform: jax.Array, front_end: FrontEnd) -> jax.Array:
    """(B, L) -> what all frames of n_fft samples lie in, the first at 0."""
    if front_end.frames == "inside":  # what meets the zeros around a shorter window
        half = (front_end.n_fft - front_end.span) // 2
        return jnp.pad(waveform, ((0, 0), (half, half)))
    half = front_end.n_fft // 2
    return jnp.pad(waveform, ((0, 0), (half, half)), mode="reflect")


# A float32 FFT is no choice anywhere: in quiet bands under loud ones it is up to 6e-4 dB off.
@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _mel(padded: jax.Array, front_end: FrontEnd) -> jax.Array:
    """Padded waveforms (B, P) -> mel bands (B, F, M), as suits where it runs."""
    by_fft, by_convolution = (
        functools.partial(way, front_end=front_end) for way in (_by_fft, _by_convolution)
    )
    return jax.lax.platform_dependent(padded, cpu=by_fft, default=by_convolution)


@_mel.defjvp
def _mel_jvp(front_end: FrontEnd, primals: tuple, tangents: tuple) -> tuple:
    # JAX would differentiate `_by_fft` outside of its float64.
    return jax.jvp(functools.partial(_by_convolution, front_end=front_end), primals, tangents)


def _by_convolution(padded: jax.Array, front_end: FrontEnd) -> jax.Array:
    """For GPU and TPU, where products are cheap and float64 is dear: sums like PANNs' own."""
    # Accelerators compute at lower precision than float32 unless told otherwise.
    spectrum = jax.lax.conv_general_dilated(
        padded[:, :, None],  # (B, P, 1)
        _kernels(front_end),
        window_strides=(front_end.hop,),
        padding="VALID",
        dimension_numbers=("NWC", "WIO", "NWC"),
        precision=jax.lax.Precision.HIGHEST,
    )  # (B, F, 2 * (n_fft // 2 + 1))
    real, imaginary = jnp.split(spectrum, 2, axis=-1)
    power = real**2 + imaginary**2
    values = jnp.sqrt(power) if front_end.magnitude else power
    return jnp.matmul(values, mel_filters(front_end), precision=jax.lax.Precision.HIGHEST)


def _by_fft(padded: jax.Array, front_end: FrontEnd) -> jax.Array:
    """For CPU: an FFT in float64, in turns of few enough frames that the cache holds them."""
    batch, n_fft, hop = padded.shape[0], front_end.n_fft, front_end.hop
    frames, hops = 1 + (padded.shape[1] - n_fft) // hop, -(-n_fft // hop)  # a frame spans `hops`
    each = min(frames, max(1, BLOCK_SAMPLES // n_fft // batch))
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
            power = spectrum.real**2 + spectrum.imag**2
            values = (jnp.sqrt(power) if front_end.magnitude else power).astype(jnp.float32)
        bands = [values[..., bins] @ filters for bins, filters in _banded_filters(front_end)]
        return jnp.concatenate(bands, axis=-1)  # (B, each, M)

    starts = np.arange(turns, dtype=np.int32) * (hop * each)
    mel = jnp.moveaxis(jax.lax.map(turn, starts), 0, 1)  # (B, turns, each, M)
    return mel.reshape(batch, turns * each, -1)[:, :frames]
