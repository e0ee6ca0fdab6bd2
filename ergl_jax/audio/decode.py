"""Audio file to mono waveform, and waveforms to the length of a clip."""

import os

import numpy as np
import soundfile
import soxr

from ergl_jax.errors import InputError

# Times full scale. A little beyond, the power of float32 samples is infinite, and so are features.
LOUDEST = 1e15


def read_audio(path: str | os.PathLike, sample_rate: int) -> np.ndarray:
    """Decodes a recording (WAV, FLAC, OGG, MP3 and whatever else libsndfile reads).

    Channels are averaged, then resampled (soxr, HQ) where the file's rate is another.

    Args:
      path: the file.
      sample_rate: Hz of the result.

    Returns:
      (L,) float32, mono, integer formats scaled to full scale 1.

    Raises:
      InputError: missing, not a file, not audio, empty, or holding NaN, infinity or what no
        front end can take (LOUDEST); one line that names the file and the reason.
    """
    try:
        # Opened here since libsndfile calls a missing file and a directory "System error".
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise InputError(f"{path}: the file is empty (0 bytes)")
            samples, file_rate = soundfile.read(file, dtype="float32", always_2d=True)
    except OSError as error:
        raise InputError(f"{path}: can't be opened: {error.strerror or error}") from error
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".")
        if "does not exist" in reason:  # libsndfile's odd word for bytes of no format it knows
            reason = "Format not recognised"
        raise InputError(f"{path}: can't be decoded as audio: {reason}") from error
    except TypeError as error:  # soundfile's answer to a name that ends in .raw
        raise InputError(f"{path}: headerless (raw) audio; convert it to WAV") from error
    if not len(samples):
        raise InputError(f"{path}: holds no samples")
    if not np.isfinite(samples).all():
        raise InputError(f"{path}: holds samples that are NaN or infinite")
    if (peak := np.abs(samples).max()) > LOUDEST:
        raise InputError(f"{path}: holds a sample of {peak:.0e}, where full scale is 1: damaged?")
    waveform = samples.mean(axis=1)  # (L,)
    if file_rate != sample_rate:
        waveform = soxr.resample(waveform, file_rate, sample_rate, quality="HQ")
        if not len(waveform):
            raise InputError(f"{path}: too short, no sample is left at {sample_rate} Hz")
    return waveform


def fit_length(waveform: np.ndarray, length: int, pad: str = "zero") -> np.ndarray:
    """Brings a waveform (L,) to (length,).

    A longer one is cropped to its centre; a shorter one is padded at its end, with zeros
    (`pad="zero"`) or with itself again (`pad="repeat"`). InputError on any other `pad`, on
    length < 1 and on an empty waveform.
    """
    _check(waveform, length, pad)
    surplus = len(waveform) - length
    if surplus >= 0:
        return waveform[surplus // 2 : surplus // 2 + length]
    if pad == "repeat":
        return np.resize(waveform, length)
    return np.pad(waveform, (0, -surplus))


def windows(waveform: np.ndarray, length: int, pad: str = "zero") -> np.ndarray:
    """Cuts a waveform (L,) into consecutive windows (W, length) that cover every sample.

    W = ceil(L / length). The last window ends where the recording ends, so it overlaps the one
    before unless length divides L; a shorter recording is padded as `fit_length` does.
    """
    _check(waveform, length, pad)
    if len(waveform) <= length:
        return fit_length(waveform, length, pad)[None]
    starts = np.arange(0, len(waveform), length)
    starts = np.minimum(starts, len(waveform) - length)
    return np.stack([waveform[start : start + length] for start in starts])


def _check(waveform: np.ndarray, length: int, pad: str) -> None:
    if pad not in ("zero", "repeat"):
        raise InputError(f'pad is {pad!r}: choose "zero" or "repeat"')
    if length < 1:
        raise InputError(f"a clip of {length} samples: the clip length must be positive")
    if waveform.ndim != 1 or not len(waveform):
        raise InputError(f"a waveform is (samples,) and not empty, not {waveform.shape}")
