"""Audio file to waveform, waveform to log-mel spectrogram or scattering; knows no model."""

from ergl_jax.audio.decode import (
    check_samples,
    fit_length,
    mono,
    read_audio,
    resample,
    stream_audio,
    stream_windows,
    windows,
)
from ergl_jax.audio.front_end import FRONT_ENDS, FrontEnd, get_front_end, log_mel

__all__ = [
    "FRONT_ENDS",
    "FrontEnd",
    "check_samples",
    "fit_length",
    "get_front_end",
    "log_mel",
    "mono",
    "read_audio",
    "resample",
    "stream_audio",
    "stream_windows",
    "windows",
]
