"""Audio file to mono waveform."""

import io
import os
import re
from collections.abc import Iterator

import numpy as np
import soundfile
import soxr

from ergl_jax.errors import InputError
from ergl_jax.files import reading

MAX_PEAK = 1e15  # times full scale; a little above, the power of float32 samples overflows
BLOCK = 1 << 18  # samples that are decoded at a time
# libsndfile's log of a file that is shorter than its header says: "data : 800 (should be 436)"
TRUNCATED = re.compile(
    r"^\s*(?:data|SSND|Data Size|Riff size|riff)\s*: (\d+) \(should be (\d+)\)", re.M
)
UNKNOWN_SIZE = 0x7FFF0000  # programs that write into a pipe put the maximum into the header


def read_audio(path: str | os.PathLike, sample_rate: int, channel: str = "mean") -> np.ndarray:
    """Decodes a whole recording to (L,) float32; see `stream_audio`."""
    return np.concatenate(list(stream_audio(path, sample_rate, channel)))


def stream_audio(
    path: str | os.PathLike, sample_rate: int, channel: str = "mean"
) -> Iterator[np.ndarray]:
    """Decodes a recording (WAV, FLAC, OGG, MP3 and whatever else libsndfile reads) in blocks.

    Mixed to mono, resampled (soxr, HQ) to `sample_rate`. Memory does not grow with the length.

    Args:
      path: the file; a remote one must be an `epath.Path`.
      sample_rate: Hz of the result.
      channel: how several channels become one: see `mono`.

    Returns:
      Consecutive blocks (l,) float32, l >= 1, integer formats scaled to full scale 1.

    Raises:
      InputError: missing, not a file, not audio, empty, truncated (MP3 and OGG don't show it), NaN,
        infinite or louder than MAX_PEAK.
    """
    with reading(path):
        try:
            yield from _decode(path, sample_rate, channel)
        except soundfile.LibsndfileError as error:
            reason = error.error_string.strip().rstrip(".") or "damaged"  # FLAC gives no reason
            if "does not exist" in reason:  # libsndfile's message for an unknown format
                reason = "Format not recognised"
            raise ValueError(f"not decodable as audio: {reason}") from error


class _Sequential(soundfile.SoundFile):
    """A file that soundfile reads from start to end without seeking.

    After each block it would seek to where it already is, and libsndfile (1.2.2) then spoils the
    last samples of an Opus file.
    """

    def seekable(self) -> bool:
        return False


def _decode(path: str | os.PathLike, sample_rate: int, channel: str) -> Iterator[np.ndarray]:
    if os.path.exists(path) and not os.path.isdir(path) and not os.path.isfile(path):
        # Opening a pipe would wait for another program to write to it.
        raise ValueError("a device or a pipe, not a file: copy it to one")
    # Opened here since libsndfile calls a missing file and a directory "System error".
    with path.open("rb") if hasattr(path, "open") else open(path, "rb") as file:
        if not file.seek(0, os.SEEK_END):
            raise ValueError("the file is empty (0 bytes)")
        file.seek(0)
        # A local file by its descriptor: otherwise libsndfile calls back into Python, where Ctrl-C
        # is lost.
        source = file.fileno() if isinstance(file, io.BufferedReader) else file
        with _Sequential(source, closefd=False) as sound:
            yield from _resample_blocks(sound, path, sample_rate, channel)


def _resample_blocks(
    sound: soundfile.SoundFile, path: str | os.PathLike, sample_rate: int, channel: str
) -> Iterator[np.ndarray]:
    for size, actual in TRUNCATED.findall(sound.extra_info):
        if int(actual) < int(size) < UNKNOWN_SIZE:
            raise ValueError(
                f"truncated: {actual} of the {size} bytes in its header ({sound.frames} samples); "
                "get it again, or save what is there as a new file"
            )
    resampler = soxr.ResampleStream(
        sound.samplerate, sample_rate, num_channels=1, dtype="float32", quality="HQ"
    )
    total, length, last = 0, 0, False  # samples read and yielded
    while not last:
        samples = sound.read(BLOCK, dtype="float32", always_2d=True)  # (l, channels)
        last = not len(samples)
        check_samples(samples, path)
        waveform = mono(samples, channel)
        if sound.samplerate != sample_rate:
            waveform = resampler.resample_chunk(waveform, last=last)
        total, length = total + len(samples), length + len(waveform)
        if len(waveform):
            yield waveform
    if not length:
        short = f"too short, no sample is left at {sample_rate} Hz"
        raise ValueError(short if total else "it has no samples")


def mono(samples: np.ndarray, channel: str) -> np.ndarray:
    """(L, channels) -> (L,): the "mean" of the channels, or the first, "left" one."""
    return samples[:, 0].copy() if channel == "left" else samples.mean(axis=1)


def resample(waveform: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """A waveform (L,) at `rate` Hz, resampled to `sample_rate` Hz as by `stream_audio`."""
    if rate == sample_rate:
        return waveform
    return soxr.resample(waveform, rate, sample_rate, quality="HQ")


def check_samples(samples: np.ndarray, name: str | os.PathLike) -> None:
    """InputError for samples that are NaN, infinite or louder than MAX_PEAK."""
    peak = np.abs(samples).max(initial=0.0)
    if not peak <= MAX_PEAK:
        loud = f"a sample of {peak:.0e}, where full scale is 1: damaged?"
        found = loud if np.isfinite(peak) else "samples that are NaN or infinite"
        raise InputError(f"{name}: has {found}")
