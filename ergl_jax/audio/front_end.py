"""The front ends by name: what decides the features of a waveform."""

import math
from dataclasses import dataclass, fields, replace
from typing import Literal

from ergl_jax.errors import InputError

# What a user may choose of a recording's channels: FrontEnd.channel
CHANNELS: dict[str, Literal["mean", "left", "right"]] = {
    "left": "left",
    "right": "right",
    "mix": "mean",
}


@dataclass(frozen=True)
class FrontEnd:
    """Log-mel spectrogram of one kind; lengths are in samples.

    The paper and PANNs need the fields without a default. The others describe the front ends of
    compared systems.
    """

    name: str
    sample_rate: int  # Hz
    # "hann" or "hamming", both periodic; "hamming_symmetric"; "morlet": no mel bands, but `n_mels`
    # scattering coefficients (scattering.py), whose averaging scale is `n_fft`
    window: str
    n_fft: int
    hop: int
    n_mels: int
    fmin: float  # Hz
    fmax: float  # Hz
    win_length: int = 0  # of the window, centred in n_fft samples; 0: n_fft
    # "centred": frames around samples 0, hop, 2 hop..., with reflection at both ends;
    # "centred_whole": the same without the last one; "inside": frames within the waveform
    frames: Literal["centred", "centred_whole", "inside"] = "centred"
    magnitude: bool = False  # mel bands of |X| instead of |X|^2
    offset: float = 0.0  # ln(x + offset); 0: 10 log10(max(x, 1e-10)), in dB
    channel: Literal["mean", "left", "right"] = "mean"  # how a recording becomes mono
    # The waveform is cut into segments of this length, one every `segment_hop`, and their frames
    # are concatenated; zeros fill the last one, win_length - hop at most. 0: not cut
    segment: int = 0
    segment_hop: int = 0
    # Whether each frame's `hop` samples, from its centre on, follow its mel bands
    waveform: bool = False

    @property
    def setting(self) -> str:
        """The name that `get_front_end` takes: `name`, or with a channel, such as "paper:right"."""
        known = FRONT_ENDS.get(self.name, self)
        if self.channel == known.channel:
            return self.name
        return f"{self.name}:{dict(zip(CHANNELS.values(), CHANNELS, strict=True))[self.channel]}"

    @property
    def span(self) -> int:
        """Length of a frame's window."""
        return self.win_length or self.n_fft

    @property
    def frame_seconds(self) -> float:
        """From one frame to the next."""
        return self.hop / self.sample_rate

    @property
    def decibels(self) -> float:
        """dB in one unit of the features: 1, or 8.7 for the natural logarithm of a magnitude."""
        if not self.offset:
            return 1.0
        return (20 if self.magnitude else 10) / math.log(10)

    @property
    def is_scattering(self) -> bool:
        """Whether the features are scattering coefficients."""
        return self.window == "morlet"

    @property
    def is_spectrogram(self) -> bool:
        """Whether the features are mel bands along the time of the whole waveform."""
        return not self.is_scattering and not self.segment and not self.waveform

    @property
    def min_samples(self) -> int:
        """Length of the shortest waveform that `log_mel` takes."""
        if self.segment:
            return self.segment - (self.span - self.hop)
        if self.frames == "inside":
            return self.span
        return max(self.n_fft // 2 + 1, self.hop if self.frames == "centred_whole" else 0)

    def with_channel(self, channel: str | None) -> "FrontEnd":
        """The same for another one of CHANNELS; InputError if it is none. None changes nothing."""
        if channel is None:
            return self
        if channel not in CHANNELS:
            raise InputError(f"channel={channel!r} is not one of: {', '.join(CHANNELS)}")
        return replace(self, channel=CHANNELS[channel])

    def numbers(self) -> dict[str, str | int | float | bool]:
        """The fields that differ from their default, for JSON (bundles, dataset fingerprints)."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }

    def num_samples(self, seconds: float) -> int:
        """Length of a clip, rounded to the nearest integer."""
        return round(seconds * self.sample_rate)

    def num_frames(self, seconds: float) -> int:
        """Frames F of a clip (`paper`, 10 s: 1001)."""
        length = self.num_samples(seconds)
        if self.segment:
            return self.num_segments(length) * self._frames(self.segment)
        return self._frames(length)

    def shape(self, seconds: float) -> tuple[int, int]:
        """(F, M) of a clip's features; M counts the waveform's samples in them."""
        return self.num_frames(seconds), self.n_mels + self.hop * self.waveform

    def num_segments(self, length: int) -> int:
        """Segments of a waveform of `length` samples, for a front end that cuts it."""
        return 1 + (length + self.span - self.hop - self.segment) // self.segment_hop

    def _frames(self, length: int) -> int:
        if self.frames == "inside":
            return 1 + (length - self.span) // self.hop
        return length // self.hop + (self.frames == "centred")


# name, Hz, window, n_fft, hop, n_mels, fmin, fmax, win_length, frames, magnitude, offset
_PANNS = (
    # The ERGL paper, section 3.1
    FrontEnd("paper", 32000, "hamming", 1024, 320, 64, 50.0, 14000.0),
    # PANNs (arXiv 1912.10211): the published Cnn14_16k; Cnn14 and most others; Cnn14_8k
    FrontEnd("panns_16k", 16000, "hann", 512, 160, 64, 50.0, 8000.0),
    FrontEnd("panns_32k", 32000, "hann", 1024, 320, 64, 50.0, 14000.0),
    FrontEnd("panns_8k", 8000, "hann", 256, 80, 64, 50.0, 4000.0),
    # Wavegram_Logmel_Cnn14
    FrontEnd("panns_wavegram", 32000, "hann", 1024, 320, 64, 50.0, 14000.0, waveform=True),
)
# Published systems of Kong and others (10 s: 320 frames): CNN from Surrey and RGASC
_KONG = FrontEnd(
    "kong", 44100, "hamming_symmetric", 2048, 1376, 64, 50.0, 22050.0, 0, "inside", True, 1e-8
)
# Baseline of DCASE 2018, task 1: 40 ms every 20 ms (10 s: 500 frames)
_DCASE = FrontEnd(
    "dcase2018", 48000, "hamming", 2048, 960, 40, 0.0, 24000.0, 1920, "centred_whole", True, 2**-52
)
# MLTF: each segment of 48960 samples has 50 frames, all within it (10 s: 13 segments). The kind of
# spectrum is our interpretation.
_MLTF = replace(_DCASE, name="mltf", n_mels=120, frames="inside", channel="left")
_COMPARED = (
    _KONG,
    replace(_KONG, name="kong_20hz", fmin=20.0),  # ABCNN
    _DCASE,
    replace(_DCASE, name="mel128", n_mels=128),  # nearest-neighbour filter, our interpretation
    replace(_DCASE, name="mtl", n_mels=64),  # MTL's 64 bands x 500 frames, our interpretation
    replace(_MLTF, segment=48960, segment_hop=36000),
    # Wavelet CRNN, our interpretation: 86 coefficients of the first order, 459 of the second
    FrontEnd(
        "scattering", 22050, "morlet", 4096, 2048, 545, 0.0, 11025.0, magnitude=True, offset=1e-6
    ),
)
FRONT_ENDS = {front_end.name: front_end for front_end in (*_PANNS, *_COMPARED)}


def get_front_end(name: str) -> FrontEnd:
    """The front end of this name, or with a channel "paper:right"; InputError lists the names."""
    name, colon, channel = name.partition(":")
    if name not in FRONT_ENDS:
        raise InputError(f"front_end={name!r} is not one of: {', '.join(FRONT_ENDS)}")
    return FRONT_ENDS[name].with_channel(channel if colon else None)
