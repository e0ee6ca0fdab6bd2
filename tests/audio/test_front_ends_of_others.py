"""The other systems' mel front ends against librosa, on both paths, and their exact shapes."""

import os
from pathlib import Path

import jax
import librosa_features
import numpy as np
import pytest
import soundfile

from ergl_jax.audio import FRONT_ENDS, FrontEnd, get_front_end, log_mel, read_audio
from ergl_jax.audio.front_end import _by_convolution, _by_fft, _padded, window
from ergl_jax.errors import InputError

SHARED = Path(os.environ.get("ERGL_SHARED_DATA") or Path(__file__).parents[3] / "shared/data")
CLIPS = sorted((SHARED / "urban_clips").glob("*.wav"))
NAMES = tuple(librosa_features.MEL)

pytestmark = pytest.mark.filterwarnings("error")
each = pytest.mark.parametrize("name", NAMES)


def signals(front_end, seconds):
    """Noise, a chirp in noise, clicks in noise, and silence that noise cuts into; (4, L)."""
    length, rate = front_end.num_samples(seconds), front_end.sample_rate
    noise = 0.1 * np.random.default_rng(0).standard_normal(length)
    time = np.arange(length) / rate
    chirp = 0.5 * np.sin(2 * np.pi * 0.25 * rate * time**2 / seconds)
    clicks = np.where(np.arange(length) % (rate // 7), 0.0, 0.9)
    half = np.where(np.arange(length) < length // 2, 0.0, noise)
    return np.float32([noise, chirp + 0.1 * noise, clicks + 1e-3 * noise, half])


@each
@pytest.mark.parametrize("seconds", [2, 5.0123])
def test_equals_librosa_on_made_signals(name, seconds):
    front_end = get_front_end(name)
    waveforms = signals(front_end, seconds)
    result = np.asarray(log_mel(waveforms, front_end))
    expected = [librosa_features.log_mel(name, waveform) for waveform in waveforms]
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5 + 1e-6 * 36)


@each
@pytest.mark.skipif(not CLIPS, reason="the real recordings are not here")
def test_equals_librosa_on_real_recordings(name):
    front_end = get_front_end(name)
    for clip in CLIPS[:4]:
        waveform = read_audio(clip, front_end.sample_rate, front_end.channel)
        result = np.asarray(log_mel(waveform[None], front_end))[0]
        expected = librosa_features.log_mel(name, waveform)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4, err_msg=clip.name)


@each
def test_both_ways_to_compute_agree(name):
    """On CPU a float64 FFT, elsewhere a float32 convolution: its noise is a part of the loudest."""
    front_end = get_front_end(name)
    waveforms = signals(front_end, 1.02)
    if front_end.segment:
        waveforms = waveforms[:, : front_end.segment]
    padded = _padded(waveforms, front_end)
    by_fft, by_convolution = (
        np.asarray(way(padded, front_end)) for way in (_by_fft, _by_convolution)
    )
    assert by_fft.shape == by_convolution.shape
    np.testing.assert_allclose(by_convolution[:3], by_fft[:3], rtol=1e-4)
    np.testing.assert_allclose(by_convolution, by_fft, rtol=0, atol=1e-5 * by_fft.max())


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("kong", [(320, 64), (159, 64), (63, 64)]),
        ("kong_20hz", [(320, 64), (159, 64), (63, 64)]),
        ("dcase2018", [(500, 40), (250, 40), (100, 40)]),
        ("mel128", [(500, 128), (250, 128), (100, 128)]),
        ("mtl", [(500, 64), (250, 64), (100, 64)]),
        ("mltf", [(13 * 50, 120), (6 * 50, 120), (2 * 50, 120)]),
    ],
)
def test_shapes_of_ten_five_and_two_seconds(name, shapes):
    front_end = get_front_end(name)
    for seconds, shape in zip((10, 5, 2), shapes, strict=True):
        waveform = jax.ShapeDtypeStruct((1, front_end.num_samples(seconds)), np.float32)
        found = jax.eval_shape(lambda x: log_mel(x, front_end), waveform)
        assert found.shape == (1, *shape)
        assert shape == (front_end.num_frames(seconds), front_end.n_mels)
        assert shape[0] % front_end.num_segments(seconds) == 0


@each
def test_any_length_has_the_frames_that_are_told(name):
    front_end = get_front_end(name)
    least = front_end.least_samples
    for length in (least, least + 1, least + front_end.hop, 2 * least + 777, 100001):
        waveform = jax.ShapeDtypeStruct((1, length), np.float32)
        found = jax.eval_shape(lambda x: log_mel(x, front_end), waveform).shape
        assert found == (1, front_end.num_frames(length / front_end.sample_rate), front_end.n_mels)


@each
def test_one_sample_too_few_is_an_error(name):
    front_end = get_front_end(name)
    least = front_end.least_samples
    assert log_mel(np.ones((1, least), np.float32), front_end).size
    with pytest.raises(InputError, match=f"{least - 1} samples is too short.*at least {least} "):
        log_mel(np.ones((1, least - 1), np.float32), front_end)


@each
def test_silence_is_the_logarithm_of_the_offset(name):
    front_end = get_front_end(name)
    found = np.asarray(log_mel(np.zeros((2, 60000), np.float32), front_end))
    np.testing.assert_allclose(found, np.log(1e-8 if "kong" in name else 2.0**-52), rtol=1e-6)


@each
def test_a_clip_is_the_same_among_others(name):
    front_end = get_front_end(name)
    waveforms = signals(front_end, 1.5)
    together = np.asarray(log_mel(waveforms, front_end))
    alone = [np.asarray(log_mel(waveform[None], front_end))[0] for waveform in waveforms]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-4)


def test_segments_follow_one_another():
    """Each is what its samples alone give."""
    front_end = get_front_end("mltf")
    waveform = signals(front_end, 3)[0]
    found = np.asarray(log_mel(waveform[None], front_end))[0].reshape(-1, 50, 120)
    assert len(found) == front_end.num_segments(3) == 3
    for k in range(3):
        part = waveform[36000 * k :][:48960]
        alone = np.asarray(log_mel(part[None], front_end))[0]
        np.testing.assert_allclose(found[k], alone, rtol=0, atol=1e-4)


def test_windows():
    """A symmetric one ends as it begins; a short one lies in the middle."""
    kong, short = window(get_front_end("kong")), window(get_front_end("dcase2018"))
    np.testing.assert_allclose(kong, np.hamming(2048), atol=1e-15)
    np.testing.assert_array_equal(short[[63, 64 + 1920]], 0)
    np.testing.assert_allclose(short[64 : 64 + 1920], np.hamming(1921)[:-1], atol=1e-15)


def test_numbers_leave_out_what_every_front_end_was_before():
    assert set(get_front_end("paper").numbers()) == {
        *("name", "sample_rate", "window", "n_fft", "hop", "n_mels", "fmin", "fmax")
    }
    for front_end in FRONT_ENDS.values():
        assert FrontEnd(**front_end.numbers()) == front_end


def test_the_left_channel_of_a_file(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (48000, 2)).astype(np.float32)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, samples, 48000, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(path, 48000, "left"), samples[:, 0])
    np.testing.assert_allclose(read_audio(path, 48000), samples.mean(axis=1), atol=1e-7)
    soundfile.write(tmp_path / "left.wav", samples[:, 0], 48000, subtype="FLOAT")
    np.testing.assert_array_equal(
        read_audio(path, 16000, "left"), read_audio(tmp_path / "left.wav", 16000)
    )
    np.testing.assert_array_equal(read_audio(tmp_path / "left.wav", 48000, "left"), samples[:, 0])
    with pytest.raises(InputError, match="channel is 'right'"):
        read_audio(path, 48000, "right")
