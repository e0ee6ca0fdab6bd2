"""Log-mel in dB, of the paper and of PANNs, against librosa, and the laws it keeps."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ergl_jax.audio import FRONT_ENDS, get_front_end, log_mel, read_audio
from ergl_jax.audio.front_end import BLOCK_SAMPLES, _by_convolution, _by_fft
from ergl_jax.errors import InputError

SHARED = Path(os.environ.get("ERGL_SHARED_DATA") or Path(__file__).parents[3] / "shared/data")
CLIPS = sorted((SHARED / "urban_clips").glob("*.wav"))

pytestmark = pytest.mark.filterwarnings("error")
NAMES = ("paper", "panns_16k", "panns_32k")
both = pytest.mark.parametrize("front_end", [FRONT_ENDS[name] for name in NAMES], ids=NAMES)


def librosa_log_mel(waveform, front_end):
    """The oracle, with the parameters written out again; (F, M) in dB."""
    window, n_fft, hop, fmax = {
        "paper": ("hamming", 1024, 320, 14000),
        "panns_16k": ("hann", 512, 160, 8000),
        "panns_32k": ("hann", 1024, 320, 14000),
    }[front_end.name]
    mel = librosa.feature.melspectrogram(
        y=waveform,
        sr={"paper": 32000, "panns_16k": 16000, "panns_32k": 32000}[front_end.name],
        n_fft=n_fft,
        hop_length=hop,
        window=window,
        center=True,
        pad_mode="reflect",
        power=2.0,
        n_mels=64,
        fmin=50,
        fmax=fmax,
    )
    return librosa.power_to_db(mel, ref=1.0, amin=1e-10, top_db=None).T


def synthetic_signals(length, sample_rate):
    """Noise, a chirp, clicks in silence, and silence that noise cuts into; (4, length)."""
    rng = np.random.default_rng(0)
    time = np.arange(length) / sample_rate
    noise = 0.1 * rng.standard_normal(length)
    chirp = 0.5 * np.sin(2 * np.pi * 0.25 * sample_rate * time**2 / time[-1])
    clicks = np.zeros(length)
    clicks[:: sample_rate // 7] = 0.9
    half = np.where(np.arange(length) < length // 2, 0.0, noise)
    # Noise under the tones: a band 90 dB below the loudest of its frame is the rounding of a
    # float32 FFT, where librosa, which computes in float64, says something else.
    signals = [noise, chirp + 0.1 * noise, clicks + 1e-3 * noise, half]
    return np.stack(signals).astype(np.float32)


@both
@pytest.mark.parametrize("length", [1024, 5000, 48000])
def test_equals_librosa_on_synthetic_signals(front_end, length):
    signals = synthetic_signals(length, front_end.sample_rate)
    result = np.asarray(log_mel(signals, front_end))
    expected = np.stack([librosa_log_mel(signal, front_end) for signal in signals])
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-3)


@both
def test_silence_is_the_floor(front_end):
    assert (np.asarray(log_mel(np.zeros((1, 4000), np.float32), front_end)) == -100).all()


@both
@pytest.mark.skipif(not CLIPS, reason="the real recordings are not here")
def test_equals_librosa_on_real_recordings(front_end):
    for clip in CLIPS:  # 10 s each
        waveform = read_audio(clip, front_end.sample_rate)
        result = np.asarray(log_mel(waveform[None], front_end))[0]
        assert result.shape == (1001, 64)
        expected = librosa_log_mel(waveform, front_end)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-3, err_msg=clip.name)


def float64_log_mel(waveforms, front_end):
    """(B, L) -> (B, F, M) in dB, rounded nowhere."""
    n_fft, rate = front_end.n_fft, front_end.sample_rate
    padded = np.pad(np.float64(waveforms), ((0, 0), (n_fft // 2, n_fft // 2)), mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft, axis=1)[:, :: front_end.hop]
    power = np.abs(np.fft.rfft(frames * librosa.filters.get_window(front_end.window, n_fft))) ** 2
    mel = librosa.filters.mel(
        sr=rate, n_fft=n_fft, n_mels=64, fmin=50, fmax=front_end.fmax, dtype=np.float64
    )
    return 10 * np.log10(np.maximum(power @ mel.T, 1e-10))


def by(way, waveforms, front_end):
    """`log_mel` as another backend computes it."""
    half = front_end.n_fft // 2
    padded = jnp.pad(waveforms, ((0, 0), (half, half)), mode="reflect")
    return 10 * np.log10(np.maximum(way(padded, front_end), 1e-10))


# What each may be off float64 on recordings, in dB. A float32 FFT is off by 6e-4.
ways = pytest.mark.parametrize(("way", "bound"), [(_by_fft, 3e-5), (_by_convolution, 2e-4)])


@both
def test_quiet_bands_under_a_loud_rumble(front_end):
    """Noise 60 dB under 60 Hz: rounding of what is loud is loud where all else is quiet."""
    rng, time = np.random.default_rng(0), np.arange(front_end.sample_rate) / front_end.sample_rate
    rumble = 0.9 * np.sin(2 * np.pi * 60 * time + np.pi * np.arange(2)[:, None])
    waveforms = np.float32(rumble + 1e-3 * rng.standard_normal(rumble.shape))
    expected = float64_log_mel(waveforms, front_end)
    assert np.abs(by(_by_fft, waveforms, front_end) - expected).max() < 3e-5
    # A float32 transform is not, by whichever sums.
    assert np.abs(by(_by_convolution, waveforms, front_end) - expected).max() > 1e-4


@both
@ways
@pytest.mark.skipif(not CLIPS, reason="the real recordings are not here")
def test_rounding_on_real_recordings(front_end, way, bound):
    for clip in CLIPS:
        waveform = read_audio(clip, front_end.sample_rate)[None]
        error = np.abs(by(way, waveform, front_end) - float64_log_mel(waveform, front_end)).max()
        assert error < bound, clip.name


BLOCK = BLOCK_SAMPLES // 512  # frames of `panns_16k`


@pytest.mark.parametrize(
    ("clips", "length"),
    [(1, 160 * (BLOCK - 1)), (1, 160 * BLOCK), (3, 40000), (BLOCK + 1, 800)],
)
def test_blocks_of_frames_change_nothing(clips, length):
    """One full block, a block and a frame, blocks that end within a clip, a frame at a time."""
    front_end = get_front_end("panns_16k")
    waveforms = 0.1 * np.random.default_rng(0).standard_normal((clips, length), np.float32)
    result = log_mel(waveforms, front_end)
    np.testing.assert_allclose(result, float64_log_mel(waveforms, front_end), rtol=0, atol=2e-4)


def test_derivative_along_the_gain():
    """d/dg 20 log10(g) at g = 1, for each value."""
    waveform = 0.1 * np.random.default_rng(3).standard_normal((2, 3000), np.float32)
    front_end = get_front_end("paper")
    _, slope = jax.jvp(lambda x: log_mel(x, front_end), (waveform,), (waveform,))
    np.testing.assert_allclose(slope, np.full(slope.shape, 20 / np.log(10)), rtol=1e-4)


@both
def test_ten_seconds_make_1001_frames(front_end):
    assert front_end.num_samples(10) == 10 * front_end.sample_rate
    assert front_end.num_frames(10) == 1001
    assert FRONT_ENDS[front_end.name] is get_front_end(front_end.name)


def test_durations_round_to_the_nearest_sample():
    paper = get_front_end("paper")
    assert paper.num_samples(0.7) == 22400  # 0.7 * 32000 is 22399.999... in floating point
    assert [paper.num_samples(n / 32000) for n in range(2000)] == list(range(2000))
    assert paper.num_samples(100.4 / 32000) == 100
    assert paper.num_samples(100.6 / 32000) == 101


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(NAMES), st.integers(513, 4000))
def test_num_frames_is_what_log_mel_returns(name, length):
    front_end = get_front_end(name)
    frames = log_mel(np.zeros((1, length), np.float32), front_end).shape[1]
    assert frames == front_end.num_frames(length / front_end.sample_rate)


@settings(max_examples=6, deadline=None)
@given(st.sampled_from(NAMES), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_batching_changes_nothing(name, batch, seed):
    front_end = get_front_end(name)
    waveforms = 0.1 * np.random.default_rng(seed).standard_normal((batch, 3000), np.float32)
    together = np.asarray(log_mel(waveforms, front_end))
    alone = [np.asarray(log_mel(waveform[None], front_end))[0] for waveform in waveforms]
    np.testing.assert_allclose(together, np.stack(alone), rtol=0, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(NAMES), st.integers(-6, 6), st.integers(0, 2**32 - 1))
def test_gain_adds_decibels(name, exponent, seed):
    waveform = 0.1 * np.random.default_rng(seed).standard_normal((1, 3000), np.float32)
    quiet, loud = (
        np.asarray(log_mel(signal, get_front_end(name)))
        for signal in (waveform, waveform * 2.0**exponent)
    )
    np.testing.assert_allclose(loud - quiet, 20 * exponent * np.log10(2), rtol=0, atol=1e-4)


@both
def test_a_delay_of_one_hop_moves_the_frames_by_one(front_end):
    waveform = 0.1 * np.random.default_rng(3).standard_normal((1, 8000), np.float32)
    delayed = np.roll(waveform, front_end.hop, axis=1)
    first, second = (np.asarray(log_mel(x, front_end))[0] for x in (waveform, delayed))
    inner = slice(4, -6)  # clear of the padding and of what the roll brought round
    np.testing.assert_allclose(first[inner], second[5:-5], rtol=0, atol=1e-4)


@both
def test_shorter_than_the_padding_is_an_error(front_end):
    half = front_end.n_fft // 2
    assert log_mel(np.ones((1, half + 1), np.float32), front_end).shape == (
        1,
        1 + (half + 1) // front_end.hop,
        64,
    )
    with pytest.raises(InputError, match=f"{half} samples is too short.*at least {half + 1}"):
        log_mel(np.ones((1, half), np.float32), front_end)


@pytest.mark.parametrize("waveform", [np.zeros(4000, np.float32), np.zeros((1, 4000), np.int16)])
def test_other_than_a_batch_of_floats_is_an_error(waveform):
    with pytest.raises(InputError, match=f"{waveform.dtype}"):
        log_mel(waveform, get_front_end("paper"))


def test_no_clips():
    with pytest.raises(InputError, match=r"one or more, not float32 \(0, 16000\)"):
        log_mel(np.zeros((0, 16000), np.float32), get_front_end("paper"))


def test_unknown_name_lists_the_names():
    with pytest.raises(InputError, match="'mfcc'.*paper, panns_16k"):
        get_front_end("mfcc")
