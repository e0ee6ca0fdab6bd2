"""Decoding in blocks is decoding at once, bit for bit, in memory that a long file doesn't fill."""

import tracemalloc

import numpy as np
import pytest
import soundfile
import soxr

from ergl_jax.audio import decode, segment, stream_audio
from ergl_jax.errors import InputError

RATES = (8000, 11025, 16000, 44100, 48000)


def at_once(path, sample_rate):
    """The recording read and resampled in one piece."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    waveform = samples.mean(axis=1)
    return waveform if rate == sample_rate else soxr.resample(waveform, rate, sample_rate, "HQ")


def write(path, rate, channels, frames=10007, **kwargs):
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (frames, channels))
    soundfile.write(path, samples, rate, **kwargs)
    return path


@pytest.fixture
def block(monkeypatch):
    """Sets how many samples are decoded at a time."""
    return lambda size: monkeypatch.setattr(decode, "BLOCK", size)


@pytest.mark.parametrize("size", [1, 1000, 1 << 18])
@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("rate", RATES)
def test_blocks_are_the_whole(tmp_path, block, rate, channels, size):
    block(size)
    frames = 301 if size == 1 else 10007
    path = write(tmp_path / "noise.wav", rate, channels, frames, subtype="FLOAT")
    blocks = list(stream_audio(path, 16000))
    assert all(len(each) and each.dtype == np.float32 for each in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks), at_once(path, 16000), strict=True)
    if size == 1000:
        assert len(blocks) > 5


@pytest.mark.parametrize(
    "suffix, subtype",
    [("wav", "PCM_16"), ("wav", "PCM_24"), ("flac", "PCM_16"), ("ogg", "VORBIS"), ("aiff", None)],
)
@pytest.mark.parametrize("rate", [16000, 44100])
def test_blocks_of_any_format_are_the_whole(tmp_path, block, suffix, subtype, rate):
    block(999)
    path = write(tmp_path / f"noise.{suffix}", rate, 2, subtype=subtype)
    np.testing.assert_array_equal(
        np.concatenate(list(stream_audio(path, 16000))), at_once(path, 16000), strict=True
    )


@pytest.mark.parametrize("rate", [16000, 48000])
@pytest.mark.parametrize("frames", [4999, 5000, 5001, 5300, 48000])
def test_the_end_of_opus_does_not_depend_on_the_blocks(tmp_path, block, rate, frames):
    """libsndfile spoils it when it is asked to seek in its last packet, as soundfile does."""
    block(1000)
    path = write(tmp_path / "a.opus", rate, 2, frames, format="OGG", subtype="OPUS")
    np.testing.assert_array_equal(
        np.concatenate(list(stream_audio(path, 16000))), at_once(path, 16000), strict=True
    )


@pytest.mark.parametrize("rate", [16000, 44100])
def test_blocks_of_mp3_are_the_whole_but_for_a_rounding(tmp_path, block, rate):
    """The decoder rounds by where in memory it writes to."""
    block(999)
    path = write(tmp_path / "noise.mp3", rate, 2)
    blocks = np.concatenate(list(stream_audio(path, 16000)))
    np.testing.assert_allclose(blocks, at_once(path, 16000), rtol=0, atol=5e-7, strict=True)


@pytest.mark.parametrize("frames", [1, 2, 3, 40])
@pytest.mark.parametrize("rate", [8000, 48000])
def test_a_few_samples_are_the_whole(tmp_path, rate, frames):
    path = write(tmp_path / "short.wav", rate, 1, frames, subtype="FLOAT")
    expected = at_once(path, 16000)
    if len(expected):
        np.testing.assert_array_equal(np.concatenate(list(stream_audio(path, 16000))), expected)
    else:
        with pytest.raises(InputError, match="too short, no sample is left at 16000 Hz"):
            list(stream_audio(path, 16000))


def test_what_is_wrong_far_inside_is_found_after_the_blocks_before_it(tmp_path, block):
    block(1000)
    samples = np.zeros(5000)
    samples[3500] = np.nan
    soundfile.write(tmp_path / "late.wav", samples, 16000, subtype="FLOAT")
    blocks = stream_audio(tmp_path / "late.wav", 16000)
    assert [len(next(blocks)) for _ in range(3)] == [1000, 1000, 1000]
    with pytest.raises(InputError, match="late.wav: holds samples that are NaN"):
        next(blocks)


def test_an_hour_takes_the_memory_of_a_moment(tmp_path):
    """At 16 kHz an hour is 230 MB of float32; its windows are consumed in a few blocks."""
    path = tmp_path / "hour.wav"
    with soundfile.SoundFile(path, "w", 8000, 1, "PCM_16") as file:
        minute = np.random.default_rng(0).integers(-3000, 3000, 8000 * 60, dtype=np.int16)
        for _ in range(60):
            file.write(minute)
    tracemalloc.start()
    try:
        ends = 0
        for start, window in segment(stream_audio(path, 16000), 160000):
            ends = start + len(window)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert ends == 3600 * 16000
    assert peak < 20e6
