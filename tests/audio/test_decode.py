"""Decoding round trips, resampling, and errors that name the file."""

import numpy as np
import pytest
import soundfile

from ergl_jax.audio import FRONT_ENDS, log_mel, read_audio
from ergl_jax.audio.decode import LOUDEST
from ergl_jax.errors import InputError

pytestmark = pytest.mark.filterwarnings("error")

RATE = 32000


def tone(frequency, rate, seconds=1.0, level=0.5):
    return level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def chord(rate=RATE):
    return tone(440, rate, level=0.3) + tone(1234, rate, level=0.2)


@pytest.mark.parametrize(
    "suffix, subtype, tolerance",
    [
        ("wav", "PCM_16", 2**-15),
        ("wav", "PCM_24", 2**-23),
        ("wav", "PCM_32", 2**-24),  # what float32 resolves
        ("wav", "FLOAT", 2**-24),
        ("flac", "PCM_16", 2**-15),
        ("flac", "PCM_24", 2**-23),
        ("ogg", "VORBIS", 0.02),
        ("mp3", "MPEG_LAYER_III", 0.05),  # a shift of one sample is 0.07
    ],
)
def test_formats_come_back_as_written(tmp_path, suffix, subtype, tolerance):
    path = tmp_path / f"chord.{suffix}"
    soundfile.write(path, chord(), RATE, subtype=subtype)
    waveform = read_audio(path, RATE)
    assert waveform.dtype == np.float32
    assert waveform.shape == (RATE,)
    inner = slice(2000, -2000) if tolerance > 1e-3 else slice(None)  # codecs smear the two ends
    np.testing.assert_allclose(waveform[inner], chord()[inner], rtol=0, atol=1.01 * tolerance)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_mono_is_the_mean_of_the_channels(tmp_path, channels):
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (500, channels)).astype(np.float32)
    soundfile.write(tmp_path / "many.wav", samples, RATE, subtype="FLOAT")
    waveform = read_audio(tmp_path / "many.wav", RATE)
    np.testing.assert_allclose(waveform, samples.mean(axis=1), rtol=0, atol=1e-7)


def test_float_samples_above_full_scale_are_kept(tmp_path):
    soundfile.write(tmp_path / "hot.wav", np.array([1.5, -2.0]), RATE, subtype="FLOAT")
    assert read_audio(tmp_path / "hot.wav", RATE).tolist() == [1.5, -2.0]


@pytest.mark.parametrize("front_end", FRONT_ENDS.values(), ids=FRONT_ENDS)
def test_features_of_the_loudest_samples_are_finite(tmp_path, front_end):
    """At another rate too: a filter's step response goes beyond its step."""
    loudest = LOUDEST * np.sign(tone(1000, 8000))
    for rate in (8000, front_end.sample_rate):
        soundfile.write(tmp_path / "loud.wav", loudest, rate, subtype="FLOAT")
        waveform = read_audio(tmp_path / "loud.wav", front_end.sample_rate)
        assert np.abs(waveform).max() >= 0.99 * LOUDEST
        waveform = np.resize(waveform, max(len(waveform), front_end.least_samples))
        assert np.isfinite(log_mel(waveform[None], front_end)).all()


@pytest.mark.parametrize("file_rate", [8000, 22050, 44100, 48000])
@pytest.mark.parametrize("rate", [16000, 32000])
def test_resampling_keeps_frequency_and_level(tmp_path, file_rate, rate):
    soundfile.write(tmp_path / "tone.wav", tone(1000, file_rate), file_rate, subtype="FLOAT")
    waveform = read_audio(tmp_path / "tone.wav", rate)
    assert waveform.dtype == np.float32
    assert abs(len(waveform) - rate) <= 1
    inner = slice(rate // 10, -rate // 10)
    expected = tone(1000, rate, seconds=2)[: len(waveform)]  # same frequency, level and phase
    np.testing.assert_allclose(waveform[inner], expected[inner], rtol=0, atol=1e-3)


def test_resampling_removes_what_would_alias(tmp_path):
    soundfile.write(tmp_path / "high.wav", tone(12000, 48000), 48000, subtype="FLOAT")
    waveform = read_audio(tmp_path / "high.wav", 16000)
    assert np.abs(waveform[1600:-1600]).max() < 1e-4


def write_missing(path):
    pass


def write_empty(path):
    path.touch()


def write_text(path):
    path.write_text("This is no recording.\n" * 50)


def write_garbage(path):
    path.write_bytes(np.random.default_rng(1).bytes(5000))


def write_cut_short(path):
    soundfile.write(path, chord(), RATE, format="FLAC")
    path.write_bytes(path.read_bytes()[:5000])


def write_no_samples(path):
    soundfile.write(path, np.zeros(0), RATE)


def write_nan(path):
    soundfile.write(path, np.array([0.1, np.nan, 0.1]), RATE, subtype="FLOAT")


def write_infinity(path):
    soundfile.write(path, np.array([0.1, -np.inf, 0.1]), RATE, subtype="FLOAT")


def write_too_loud(path):
    soundfile.write(path, np.array([0.1, -1e20, 0.1]), RATE, subtype="FLOAT")


def write_one_sample(path):
    soundfile.write(path, np.zeros(1), 192000)


@pytest.mark.parametrize(
    "write, reason",
    [
        (write_missing, "No such file"),
        (lambda path: path.mkdir(), "directory"),
        (write_empty, "empty"),
        (write_text, "can't be decoded as audio: Format not recognised"),
        (write_garbage, "can't be decoded as audio: Format not recognised"),
        (write_cut_short, "can't be decoded as audio"),
        (write_no_samples, "no samples"),
        (write_nan, "NaN or infinite"),
        (write_infinity, "NaN or infinite"),
        (write_too_loud, r"a sample of 1e\+20, where full scale is 1"),
        (write_one_sample, "too short"),
    ],
)
def test_a_bad_file_is_named_with_its_reason(tmp_path, write, reason):
    path = tmp_path / "clip.wav"
    write(path)
    with pytest.raises(InputError, match=reason) as caught:
        read_audio(path, 16000)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_name_says_nothing_of_the_format(tmp_path):
    """Not even .raw, which soundfile would take for headerless audio."""
    path = tmp_path / "clip.raw"
    path.write_bytes(bytes(1000))
    with pytest.raises(InputError, match=r"clip\.raw: can't be decoded.*Format not recognised"):
        read_audio(path, 16000)
    soundfile.write(path, np.full(16000, 0.5), 16000, format="FLAC")
    np.testing.assert_allclose(read_audio(path, 16000), 0.5, atol=1e-4)
