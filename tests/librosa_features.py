"""The front ends beside PANNs' as librosa computes them, their parameters written out again."""

import librosa
import numpy as np

# Of each: Hz, mel bands, lowest and highest frequency.
KONG = {"kong": (44100, 64, 50, 22050), "kong_20hz": (44100, 64, 20, 22050)}
DCASE = {
    "dcase2018": (48000, 40, 0, 24000),
    "mel128": (48000, 128, 0, 24000),
    "mtl": (48000, 64, 0, 24000),
}
MLTF = {"mltf": (48000, 120, 0, 24000)}
MEL = KONG | DCASE | MLTF


def bands(name, waveform):
    """(L,) -> the mel bands (F, M) before the logarithm, in float64."""
    waveform = np.float64(waveform)
    rate, n_mels, fmin, fmax = MEL[name]
    if name in KONG:
        stft = librosa.stft(
            waveform, n_fft=2048, hop_length=1376, window=np.hamming(2048), center=False
        )
    elif name in DCASE:
        stft = librosa.stft(
            waveform,
            n_fft=2048,
            hop_length=960,
            win_length=1920,
            window="hamming",
            center=True,
            pad_mode="reflect",
        )[:, : len(waveform) // 960]
    else:
        stft = np.concatenate([_segment(each) for each in _segments(waveform)], axis=1)
    mel = librosa.filters.mel(sr=rate, n_fft=2048, n_mels=n_mels, fmin=fmin, fmax=fmax)
    return (mel @ np.abs(stft)).T


def log_mel(name, waveform):
    """(L,) -> (F, M), natural logarithms."""
    return np.log(bands(name, waveform) + (1e-8 if name in KONG else np.spacing(1)))


def _segments(waveform):
    """Of 48960 samples every 36000; the last may lack 960."""
    starts = range(0, len(waveform) - 48000 + 1, 36000)
    found = [waveform[start : start + 48960] for start in starts]
    return [np.pad(part, (0, 48960 - len(part))) for part in found]


def _segment(samples):
    """A frame at a time: librosa's stft knows none that are shorter than its n_fft."""
    window = librosa.filters.get_window("hamming", 1920)
    frames = librosa.util.frame(samples, frame_length=1920, hop_length=960)  # (1920, 50)
    return np.fft.rfft(frames * window[:, None], n=2048, axis=0)
