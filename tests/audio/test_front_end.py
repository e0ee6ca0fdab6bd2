"""The front ends against librosa and float64, on both ways to compute mel bands, and their laws."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import librosa
import librosa_features
import numpy as np
import pytest

from ergl_jax.audio import FRONT_ENDS, FrontEnd, get_front_end, log_mel, mel, read_audio
from ergl_jax.audio.features import pad_ends
from ergl_jax.audio.mel import BLOCK_SAMPLES, by_convolution, by_fft
from ergl_jax.errors import InputError

SHARED = Path(os.environ.get("ERGL_SHARED_DATA", "not given"))
CLIPS = sorted((SHARED / "urban_clips").glob("*.wav"))
PANNS = ("paper", "panns_16k", "panns_32k", "panns_8k")
MEL = tuple(librosa_features.MEL)
panns = pytest.mark.parametrize("front_end", [FRONT_ENDS[name] for name in PANNS], ids=PANNS)
all_mel = pytest.mark.parametrize("front_end", [FRONT_ENDS[name] for name in MEL], ids=MEL)
recordings = pytest.mark.skipif(not CLIPS, reason="the real recordings are not here")


def noise(front_end, seconds, batch=1, seed=0):
    shape = (batch, front_end.num_samples(seconds))
    return 0.1 * np.random.default_rng(seed).standard_normal(shape, np.float32)


def signals(front_end, seconds):
    """Noise, a chirp, clicks, and noise after silence; (4, L).

    All in noise: 90 dB below the loudest band, a float32 FFT of any kind has its own rounding.
    """
    length, rate = front_end.num_samples(seconds), front_end.sample_rate
    time, hiss = np.arange(length) / rate, noise(front_end, seconds)[0]
    chirp = 0.5 * np.sin(2 * np.pi * 0.25 * rate * time**2 / seconds)
    clicks = np.where(np.arange(length) % (rate // 7), 0.0, 0.9)
    half = np.where(np.arange(length) < length // 2, 0.0, hiss)
    return np.float32([hiss, chirp + 0.1 * hiss, clicks + 1e-3 * hiss, half])


@all_mel
def test_window_and_filters_are_librosas_bit_for_bit(front_end):
    name, _, symmetric = front_end.window.partition("_")
    window = librosa.filters.get_window(name, front_end.span, fftbins=not symmetric)
    expected = librosa.util.pad_center(window, size=front_end.n_fft)
    np.testing.assert_array_equal(mel.window(front_end), expected)
    settings = {"n_mels": front_end.n_mels, "fmin": front_end.fmin, "fmax": front_end.fmax}
    filters = librosa.filters.mel(sr=front_end.sample_rate, n_fft=front_end.n_fft, **settings)
    np.testing.assert_array_equal(mel.mel_filters(front_end), filters.T)
    settings["n_mels"] += 2
    np.testing.assert_array_equal(mel.mel_edges(front_end), librosa.mel_frequencies(**settings))


@all_mel
@pytest.mark.parametrize("seconds", [1.02, 2.0123])
def test_equals_librosa_on_synthetic_signals(front_end, seconds):
    waveforms = signals(front_end, seconds)
    result = np.asarray(log_mel(waveforms, front_end))
    expected = [librosa_features.log_mel(front_end.name, waveform) for waveform in waveforms]
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=0, atol=4.6e-5 if front_end.offset else 1e-3)


@all_mel
@recordings
def test_equals_librosa_on_real_recordings(front_end):
    for clip in CLIPS[: None if front_end.name in PANNS else 2]:  # 10 s each
        waveform = read_audio(clip, front_end.sample_rate, front_end.channel)
        result = np.asarray(log_mel(waveform[None], front_end))[0]
        expected = librosa_features.log_mel(front_end.name, waveform)
        atol = 1e-4 if front_end.offset else 1e-3
        np.testing.assert_allclose(result, expected, rtol=0, atol=atol, err_msg=clip.name)


@all_mel
def test_both_ways_to_compute_agree(front_end):
    """A float64 FFT on CPU and a float32 convolution elsewhere, with noise of its loudest band."""
    waveforms = signals(front_end, 1.02)
    if front_end.segment:
        waveforms = waveforms[:, : front_end.segment]
    padded = pad_ends(waveforms, front_end)
    fft, convolution = (np.asarray(way(padded, front_end)) for way in (by_fft, by_convolution))
    np.testing.assert_allclose(convolution[:3], fft[:3], rtol=1e-4)
    np.testing.assert_allclose(convolution, fft, rtol=0, atol=1e-5 * fft.max())


@all_mel
def test_laws(front_end):
    """Silence is the floor, a clip is the same alone and in a batch, a gain adds its logarithm."""
    waveforms = signals(front_end, 1.02)[:3]
    floor = np.log(front_end.offset) if front_end.offset else -100
    silence = np.asarray(log_mel(0 * waveforms, front_end))
    np.testing.assert_allclose(silence, floor, rtol=1e-6)
    together = np.asarray(log_mel(waveforms, front_end))
    alone = [np.asarray(log_mel(waveform[None], front_end))[0] for waveform in waveforms]
    np.testing.assert_allclose(together, np.stack(alone), rtol=0, atol=1e-4)
    louder = np.asarray(log_mel(waveforms * 8, front_end))
    gain = (louder - together)[0] * front_end.decibels
    np.testing.assert_allclose(
        gain, 60 * np.log10(2), rtol=0, atol=1e-3 if front_end.offset else 1e-4
    )


def bands_in_db(way, waveforms, front_end):
    padded = pad_ends(jnp.asarray(waveforms), front_end)
    return 10 * np.log10(np.maximum(way(padded, front_end), 1e-10))


def float64_log_mel(waveforms, front_end):
    return np.stack([librosa_features.log_mel(front_end.name, each) for each in waveforms])


@panns
def test_quiet_bands_under_a_loud_rumble(front_end):
    """Noise 60 dB under 60 Hz: rounding of what is loud is loud where all else is quiet."""
    time = np.arange(front_end.sample_rate) / front_end.sample_rate
    rumble = 0.9 * np.sin(2 * np.pi * 60 * time + np.pi * np.arange(2)[:, None])
    waveforms = np.float32(rumble + 1e-2 * noise(front_end, 1, batch=2))
    expected = float64_log_mel(waveforms, front_end)
    assert np.abs(bands_in_db(by_fft, waveforms, front_end) - expected).max() < 3e-5
    # Any float32 transform has this error.
    assert np.abs(bands_in_db(by_convolution, waveforms, front_end) - expected).max() > 1e-4


@panns
@pytest.mark.parametrize(("way", "bound"), [(by_fft, 3e-5), (by_convolution, 2e-4)])
@recordings
def test_rounding_on_real_recordings(front_end, way, bound):
    for clip in CLIPS:
        waveform = read_audio(clip, front_end.sample_rate)[None]
        error = bands_in_db(way, waveform, front_end) - float64_log_mel(waveform, front_end)
        assert np.abs(error).max() < bound, clip.name


BLOCK = BLOCK_SAMPLES // 512  # frames of `panns_16k`


@pytest.mark.parametrize(
    ("clips", "length"), [(1, 160 * (BLOCK - 1)), (1, 160 * BLOCK), (3, 40000), (BLOCK + 1, 800)]
)
def test_blocks_of_frames_change_nothing(clips, length):
    """One full block, a block and a frame, blocks that end within a clip, a frame at a time."""
    front_end = get_front_end("panns_16k")
    waveforms = noise(front_end, length / 16000, clips)
    expected = float64_log_mel(waveforms, front_end)
    np.testing.assert_allclose(log_mel(waveforms, front_end), expected, rtol=0, atol=2e-4)


def test_derivative_along_the_gain():
    """d/dg 20 log10(g) at g = 1, for each value."""
    front_end = get_front_end("paper")
    waveform = noise(front_end, 0.1, batch=2)
    _, slope = jax.jvp(lambda x: log_mel(x, front_end), (waveform,), (waveform,))
    np.testing.assert_allclose(slope, np.full(slope.shape, 20 / np.log(10)), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        *((name, [(1001, 64), (501, 64), (201, 64)]) for name in PANNS),
        *((name, [(320, 64), (159, 64), (63, 64)]) for name in ("kong", "kong_20hz")),
        ("dcase2018", [(500, 40), (250, 40), (100, 40)]),
        ("mel128", [(500, 128), (250, 128), (100, 128)]),
        ("mtl", [(500, 64), (250, 64), (100, 64)]),
        ("mltf", [(13 * 50, 120), (6 * 50, 120), (2 * 50, 120)]),
        ("scattering", [(108, 545), (54, 545), (22, 545)]),
    ],
)
def test_shapes(name, shapes):
    """Of 10, 5 and 2 s, and of any other length from the shortest on."""
    front_end, features = get_front_end(name), {}
    shortest, rate = front_end.min_samples, front_end.sample_rate
    for length in (10 * rate, 5 * rate, 2 * rate, shortest, shortest + 1, 2 * shortest + 777):
        waveform = jax.ShapeDtypeStruct((1, length), np.float32)
        features[length] = jax.eval_shape(lambda x: log_mel(x, front_end), waveform).shape
        frames = front_end.num_frames(length / rate)
        assert features[length] == (1, frames, front_end.n_mels)
    assert [features[seconds * rate][1:] for seconds in (10, 5, 2)] == shapes
    with pytest.raises(ValueError, match=f"samples >= {shortest}"):
        log_mel(np.ones((1, shortest - 1), np.float32), front_end)


def test_segments_follow_one_another():
    """Each is what its samples alone give."""
    front_end = get_front_end("mltf")
    waveform = signals(front_end, 3)[0]
    found = np.asarray(log_mel(waveform[None], front_end))[0].reshape(-1, 50, 120)
    assert len(found) == 3
    for k in range(3):
        part = waveform[36000 * k :][:48960]
        alone = np.asarray(log_mel(part[None], front_end))[0]
        np.testing.assert_allclose(found[k], alone, rtol=0, atol=1e-4)


def test_durations_round_to_the_nearest_sample():
    paper = get_front_end("paper")
    assert paper.num_samples(0.7) == 22400  # 0.7 * 32000 is 22399.999... in floating point
    assert [paper.num_samples(n / 32000) for n in range(2000)] == list(range(2000))


def test_numbers_leave_out_defaults():
    """Bundles and fingerprints of datasets contain them."""
    assert set(get_front_end("paper").numbers()) == {
        *("name", "sample_rate", "window", "n_fft", "hop", "n_mels", "fmin", "fmax")
    }
    for front_end in FRONT_ENDS.values():
        assert FrontEnd(**front_end.numbers()) == front_end


@pytest.mark.parametrize(
    "waveform", [np.zeros(4000, np.float32), np.zeros((1, 4000), np.int16), np.zeros((0, 4000))]
)
def test_other_than_a_batch_of_floats_is_an_error(waveform):
    with pytest.raises(ValueError, match="log_mel needs floating-point waveforms"):
        log_mel(waveform, get_front_end("paper"))


@pytest.mark.parametrize("name", ["paper", "paper:left", "paper:right", "mltf", "mltf:mix"])
def test_the_setting_of_a_front_end_makes_it_again(name):
    assert get_front_end(name).setting == name


def test_an_unknown_name_lists_the_names():
    with pytest.raises(InputError, match="'mfcc'.*paper, panns_16k"):
        get_front_end("mfcc")
