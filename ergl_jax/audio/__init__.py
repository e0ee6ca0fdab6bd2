"""Audio file to waveform, waveform to clips, clips to log-mel spectrogram or scattering."""

from ergl_jax.audio.decode import mix, read_audio, stream_audio
from ergl_jax.audio.features import log_mel
from ergl_jax.audio.front_end import CHANNELS, FRONT_ENDS, FrontEnd, get_front_end
from ergl_jax.audio.levels import check_samples
from ergl_jax.audio.recordings import expand
from ergl_jax.audio.segments import segment

__all__ = [
    "CHANNELS",
    "FRONT_ENDS",
    "FrontEnd",
    "check_samples",
    "expand",
    "get_front_end",
    "log_mel",
    "mix",
    "read_audio",
    "segment",
    "stream_audio",
]
