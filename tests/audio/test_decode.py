"""Decoding: formats, blocks of a stream, resampling, and errors that name the file."""

import tracemalloc

import numpy as np
import pytest
import soundfile
import soxr

from ergl_jax.audio import FRONT_ENDS, decode, log_mel, read_audio, segment, stream_audio
from ergl_jax.audio.levels import MAX_PEAK
from ergl_jax.errors import InputError

RATE = 16000


def tone(frequency, rate, seconds=1.0, level=0.5):
    return level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def noise(path, rate, channels, frames=10007, **kwargs):
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (frames, channels)).astype(np.float32)
    soundfile.write(path, samples, rate, **kwargs)
    return samples


def read_whole(path, sample_rate):
    """The recording read and resampled in one piece."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    waveform = samples.mean(axis=1)
    return waveform if rate == sample_rate else soxr.resample(waveform, rate, sample_rate, "HQ")


@pytest.mark.parametrize(
    "suffix, subtype, tolerance",
    [
        ("wav", "PCM_16", 2**-15),
        ("wav", "PCM_32", 2**-24),  # the resolution of float32
        ("wav", "FLOAT", 2**-24),
        ("flac", "PCM_24", 2**-23),
        ("ogg", "VORBIS", 0.02),
        ("mp3", "MPEG_LAYER_III", 0.05),  # a shift of one sample is 0.07
    ],
)
def test_formats_come_back_as_written(tmp_path, suffix, subtype, tolerance):
    path, chord = tmp_path / f"chord.{suffix}", tone(440, 32000, level=0.3) + tone(1234, 32000)
    chord *= 0.8
    soundfile.write(path, chord, 32000, subtype=subtype)
    waveform = read_audio(path, 32000)
    assert waveform.dtype == np.float32 and waveform.shape == (32000,)
    inner = slice(2000, -2000) if tolerance > 1e-3 else slice(None)  # codecs smear the two ends
    np.testing.assert_allclose(waveform[inner], chord[inner], rtol=0, atol=1.01 * tolerance)


def test_mean_and_left_channel(tmp_path):
    path = tmp_path / "many.wav"
    samples = noise(path, RATE, 3, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(path, RATE), samples.mean(axis=1), rtol=0, atol=1e-7)
    np.testing.assert_array_equal(read_audio(path, RATE, "left"), samples[:, 0])
    soundfile.write(tmp_path / "left.wav", samples[:, 0], RATE, subtype="FLOAT")
    resampled = [read_audio(path, 8000, "left"), read_audio(tmp_path / "left.wav", 8000, "left")]
    np.testing.assert_array_equal(*resampled)


def test_float_samples_above_full_scale_are_kept(tmp_path):
    soundfile.write(tmp_path / "hot.wav", np.array([1.5, -2.0]), RATE, subtype="FLOAT")
    assert read_audio(tmp_path / "hot.wav", RATE).tolist() == [1.5, -2.0]


@pytest.mark.parametrize("name", ["paper", "kong", "scattering"])
def test_features_of_the_loudest_samples_are_finite(tmp_path, name):
    front_end = FRONT_ENDS[name]
    loudest = MAX_PEAK * np.sign(tone(1000, 8000))
    for rate in (8000, front_end.sample_rate):  # resampled, it overshoots
        soundfile.write(tmp_path / "loud.wav", loudest, rate, subtype="FLOAT")
        waveform = read_audio(tmp_path / "loud.wav", front_end.sample_rate)
        assert np.abs(waveform).max() >= 0.99 * MAX_PEAK
        waveform = np.resize(waveform, front_end.sample_rate)
        assert np.isfinite(log_mel(waveform[None], front_end)).all()


@pytest.mark.parametrize("file_rate", [8000, 44100, 48000])
def test_resampling_keeps_frequency_level_and_phase(tmp_path, file_rate):
    soundfile.write(tmp_path / "tone.wav", tone(1000, file_rate), file_rate, subtype="FLOAT")
    waveform = read_audio(tmp_path / "tone.wav", RATE)
    assert waveform.dtype == np.float32 and abs(len(waveform) - RATE) <= 1
    inner = slice(RATE // 10, -RATE // 10)
    expected = tone(1000, RATE, seconds=2)[: len(waveform)]
    np.testing.assert_allclose(waveform[inner], expected[inner], rtol=0, atol=1e-3)


def test_resampling_does_not_alias(tmp_path):
    soundfile.write(tmp_path / "high.wav", tone(12000, 48000), 48000, subtype="FLOAT")
    assert np.abs(read_audio(tmp_path / "high.wav", RATE)[1600:-1600]).max() < 1e-4


@pytest.mark.parametrize("size", [1, 1000, 1 << 18])
@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100])
def test_blocks_equal_the_whole(tmp_path, monkeypatch, rate, size):
    monkeypatch.setattr(decode, "BLOCK", size)
    path = tmp_path / "noise.wav"
    noise(path, rate, 2, 301 if size == 1 else 10007, subtype="FLOAT")
    blocks = list(stream_audio(path, RATE))
    assert all(len(block) and block.dtype == np.float32 for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks), read_whole(path, RATE), strict=True)
    assert len(blocks) > 5 or size != 1000


# libsndfile spoils the end of an Opus file when it seeks there, as soundfile does.
@pytest.mark.parametrize("frames", [4999, 5000, 5300])
@pytest.mark.parametrize(
    "suffix, kind",
    [
        ("flac", {"subtype": "PCM_16"}),
        ("ogg", {"subtype": "VORBIS"}),
        ("aiff", {}),
        ("opus", {"format": "OGG", "subtype": "OPUS"}),
        ("mp3", {}),
    ],
)
def test_blocks_of_any_format_equal_the_whole(tmp_path, monkeypatch, suffix, kind, frames):
    monkeypatch.setattr(decode, "BLOCK", 999)
    path = tmp_path / f"noise.{suffix}"
    noise(path, 48000, 2, frames, **kind)
    blocks = np.concatenate(list(stream_audio(path, RATE)))
    # FFmpeg decodes MP3, libmpg123 is the oracle.
    atol = 1e-5 if suffix == "mp3" else 0
    np.testing.assert_allclose(blocks, read_whole(path, RATE), rtol=0, atol=atol, strict=True)
    monkeypatch.setattr(decode, "BLOCK", 1 << 18)
    np.testing.assert_array_equal(blocks, read_audio(path, RATE), strict=True)


def test_blocks_before_an_error_are_yielded(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "BLOCK", 1000)
    samples = np.zeros(5000)
    samples[3500] = np.nan
    soundfile.write(tmp_path / "late.wav", samples, RATE, subtype="FLOAT")
    blocks = stream_audio(tmp_path / "late.wav", RATE)
    assert [len(next(blocks)) for _ in range(3)] == [1000, 1000, 1000]
    with pytest.raises(InputError, match="late.wav: has samples that are NaN"):
        next(blocks)


def test_memory_does_not_grow_with_the_length(tmp_path):
    """Twenty minutes at 16 kHz are 77 MB of float32."""
    minute = np.random.default_rng(0).integers(-3000, 3000, 8000 * 60, dtype=np.int16)
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 8000, 1, "PCM_16") as file:
        for _ in range(20):
            file.write(minute)
    tracemalloc.start()
    try:
        for start, window in segment(stream_audio(tmp_path / "long.wav", RATE), 160000):
            end = start + len(window)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert end == 1200 * RATE and peak < 20e6


def with_sample(value):
    return lambda path: soundfile.write(path, np.array([0.1, value]), RATE, "FLOAT", format="WAV")


def truncate(path, share=0.5, **kind):
    noise(path, RATE, 1, **kind)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


@pytest.mark.parametrize(
    "write, reason",
    [
        (lambda path: None, "can't be read: No such file"),
        (lambda path: path.mkdir(), "can't be read: Is a directory"),
        (lambda path: path.touch(), r"the file is empty \(0 bytes\)"),
        (lambda path: path.write_text("no audio " * 99), "not decodable as audio: text"),
        (lambda path: truncate(path, format="FLAC"), "not decodable as audio: "),
        (lambda path: truncate(path, format="WAV"), "truncated: 9985 of the 20014 bytes"),
        (lambda path: truncate(path, 1 - 1e-4, format="WAV", subtype="PCM_24"), "truncated: "),
        (lambda path: truncate(path, format="AIFF"), "truncated: "),
        (lambda path: soundfile.write(path, np.zeros(0), RATE, format="WAV"), "has no samples"),
        (lambda path: noise(path, 192000, 1, 1, format="WAV"), "too short, no sample is left at"),
        (with_sample(np.nan), "NaN or infinite"),
        (with_sample(1e20), r"a sample of 1e\+20, where full scale is 1"),
    ],
)
def test_a_bad_file_is_named_with_its_reason(tmp_path, write, reason):
    path = tmp_path / "clip.raw"  # soundfile would take the name for headerless audio
    write(path)
    with pytest.raises(InputError, match=reason) as caught:
        read_audio(path, RATE)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
