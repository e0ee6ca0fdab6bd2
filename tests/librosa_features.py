"""The mel front ends as librosa computes them, their parameters written out again."""

import librosa
import numpy as np

# Of each: Hz, mel bands, lowest and highest frequency.
PANNS = {
    "paper": (32000, 64, 50, 14000),
    "panns_16k": (16000, 64, 50, 8000),
    "panns_32k": (32000, 64, 50, 14000),
    "panns_8k": (8000, 64, 50, 4000),
}
KONG = {"kong": (44100, 64, 50, 22050), "kong_20hz": (44100, 64, 20, 22050)}
DCASE = {
    "dcase2018": (48000, 40, 0, 24000),
    "mel128": (48000, 128, 0, 24000),
    "mtl": (48000, 64, 0, 24000),
}
MLTF = {"mltf": (48000, 120, 0, 24000)}
MEL = PANNS | KONG | DCASE | MLTF


def bands(name, waveform):
    """(L,) -> the mel bands (F, M) before the logarithm, in float64."""
    waveform = np.float64(waveform)
    rate, n_mels, fmin, fmax = MEL[name]
    n_fft = 2048
    if name in PANNS:
        n_fft, hop = {16000: (512, 160), 8000: (256, 80)}.get(rate, (1024, 320))
        window = "hamming" if name == "paper" else "hann"
        spectrum = librosa.stft(
            waveform, n_fft=n_fft, hop_length=hop, window=window, pad_mode="reflect"
        )
    elif name in KONG:
        spectrum = librosa.stft(
            waveform, n_fft=n_fft, hop_length=1376, window=np.hamming(n_fft), center=False
        )
    elif name in DCASE:
        spectrum = librosa.stft(
            waveform,
            n_fft=n_fft,
            hop_length=960,
            win_length=1920,
            window="hamming",
            center=True,
            pad_mode="reflect",
        )[:, : len(waveform) // 960]
    else:
        spectrum = np.concatenate([_segment(each) for each in _segments(waveform)], axis=1)
    filters = librosa.filters.mel(
        sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax, dtype=np.float64
    )
    return (filters @ np.abs(spectrum) ** (2 if name in PANNS else 1)).T


def log_mel(name, waveform):
    """(L,) -> (F, M): dB for PANNs and the paper, else natural logarithms."""
    values = bands(name, waveform)
    if name in PANNS:
        return librosa.power_to_db(values.T, ref=1.0, amin=1e-10, top_db=None).T
    return np.log(values + (1e-8 if name in KONG else np.spacing(1)))


def _segments(waveform):
    """48960 samples every 36000; the last segment may lack 960."""
    starts = range(0, len(waveform) - 48000 + 1, 36000)
    found = [waveform[start : start + 48960] for start in starts]
    return [np.pad(part, (0, 48960 - len(part))) for part in found]


def _segment(samples):
    """One frame at a time: librosa's stft takes no frames shorter than its n_fft."""
    window = librosa.filters.get_window("hamming", 1920)
    frames = librosa.util.frame(samples, frame_length=1920, hop_length=960)  # (1920, 50)
    return np.fft.rfft(frames * window[:, None], n=2048, axis=0)
