"""Audio file to mono waveform."""

import io
import os
import re
from collections.abc import Iterator
from pathlib import PurePath

import numpy as np
import soundfile
import soxr

from ergl_jax.errors import InputError

# Times full scale. A little beyond, the power of float32 samples is infinite, and so are features.
LOUDEST = 1e15
BLOCK = 1 << 18  # samples that are decoded at a time
# What libsndfile notes where a header promises more bytes than there are: "data : 800 (should be
# 436)". A program that writes into a pipe can't know the size and promises as much as can be.
CUT_OFF = re.compile(
    r"^\s*(?:data|SSND|Data Size|Riff size|riff)\s*: (\d+) \(should be (\d+)\)", re.M
)
UNKNOWN_SIZE = 0x7FFF0000


def read_audio(path: str | os.PathLike, sample_rate: int, channel: str = "mean") -> np.ndarray:
    """Decodes a whole recording: the (L,) float32 of `stream_audio`, which see."""
    return np.concatenate(list(stream_audio(path, sample_rate, channel)))


def stream_audio(
    path: str | os.PathLike, sample_rate: int, channel: str = "mean"
) -> Iterator[np.ndarray]:
    """Decodes a recording (WAV, FLAC, OGG, MP3 and whatever else libsndfile reads) in blocks.

    Channels become one, which is resampled (soxr, HQ) where the file's rate is another. Memory
    does not grow with the recording's length.

    Args:
      path: the file; what isn't on this machine's disk must be a path that opens itself.
      sample_rate: Hz of the result.
      channel: which of the recording's: see `mono`.

    Returns:
      Blocks (l,) float32, l >= 1, in order: mono, integer formats scaled to full scale 1.

    Raises:
      InputError: missing, not a file, not audio, empty, cut off (as far as the format tells: MP3
        and OGG, made for streams, do not), or holding NaN, infinity or what no front end can take
        (LOUDEST); one line that names the file and the reason.
    """
    if "\0" in os.fsdecode(path):
        raise InputError(f"{path!r} is no file's name")
    try:
        if os.path.exists(path) and not os.path.isdir(path) and not os.path.isfile(path):
            # To open a pipe waits for whoever writes to it.
            raise InputError(f"{path}: a device or a pipe, not a file: copy it to one")
        # Opened here since libsndfile calls a missing file and a directory "System error".
        with path.open("rb") if isinstance(path, PurePath) else open(path, "rb") as file:
            if not file.seek(0, os.SEEK_END):
                raise InputError(f"{path}: the file is empty (0 bytes)")
            file.seek(0)
            # By its number where it has one: else libsndfile calls back into Python, where Ctrl-C
            # is lost.
            local = isinstance(file, io.BufferedReader)
            with _Sequential(file.fileno() if local else file, closefd=False) as sound:
                yield from _resampled(path, sound, sample_rate, channel)
    except OSError as error:
        raise InputError(f"{path}: can't be opened: {error.strerror or error}") from error
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".")
        if "does not exist" in reason:  # libsndfile's odd word for bytes of no format it knows
            reason = "Format not recognised"
        reason = reason or "it is damaged or cut off"  # FLAC has no words for it
        raise InputError(f"{path}: can't be decoded as audio: {reason}") from error


class _Sequential(soundfile.SoundFile):
    """A file that is read from its start to its end.

    After each block soundfile seeks to where it already is, and libsndfile (1.2.2) then spoils the
    last samples of an Opus file. What can't be sought is left alone.
    """

    def seekable(self) -> bool:
        return False


def _resampled(
    path, sound: soundfile.SoundFile, sample_rate: int, channel: str
) -> Iterator[np.ndarray]:
    """The blocks of an open file, checked, mono and at `sample_rate`."""
    for promised, there in CUT_OFF.findall(sound.extra_info):
        if int(there) < int(promised) < UNKNOWN_SIZE:
            raise InputError(
                f"{path}: cut off: {there} of the {promised} bytes that its header promises are "
                f"there ({sound.frames} samples); get it again, or save what is there as a new file"
            )
    same = sound.samplerate == sample_rate
    resampler = soxr.ResampleStream(
        sound.samplerate, sample_rate, num_channels=1, dtype="float32", quality="HQ"
    )
    seen = found = False
    while True:
        samples = sound.read(BLOCK, dtype="float32", always_2d=True)  # (l, channels)
        last = not len(samples)
        if last and not seen:
            raise InputError(f"{path}: holds no samples")
        seen = True
        check_samples(samples, path)
        waveform = mono(samples, channel)
        if not same:
            waveform = resampler.resample_chunk(waveform, last=last)
        if len(waveform):
            found = True
            yield waveform
        if last:
            break
    if not found:
        raise InputError(f"{path}: too short, no sample is left at {sample_rate} Hz")


def mono(samples: np.ndarray, channel: str) -> np.ndarray:
    """Samples (L, channels) as (L,): the channels' "mean", or the first, which is the "left"."""
    if channel not in ("mean", "left"):
        raise InputError(f'channel is {channel!r}: choose "mean" or "left"')
    return samples[:, 0].copy() if channel == "left" else samples.mean(axis=1)


def resample(waveform: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """A waveform (L,) at `rate` Hz to `sample_rate` Hz, as `stream_audio` does it."""
    if rate == sample_rate:
        return waveform
    return soxr.resample(waveform, rate, sample_rate, quality="HQ")


def check_samples(samples: np.ndarray, name: str | os.PathLike) -> None:
    """InputError where samples are NaN, infinite or louder than LOUDEST."""
    if not np.isfinite(samples).all():
        raise InputError(f"{name}: holds samples that are NaN or infinite")
    if (peak := np.abs(samples).max(initial=0.0)) > LOUDEST:
        raise InputError(f"{name}: holds a sample of {peak:.0e}, where full scale is 1: damaged?")
