"""A trained model classifies files and samples of any rate and length, in few programs."""

import dataclasses
import json
import logging

import jax
import numpy as np
import pytest
import soundfile
import soxr

import ergl_jax
from ergl_jax import bundle as bundles
from ergl_jax.audio import log_mel
from ergl_jax.errors import InputError
from ergl_jax.inference.classify import Classification, Model

RATE = 16000  # of the tiny run's front end, whose clips are 2 s
CLIP = 2 * RATE


@pytest.fixture(scope="module")
def bundle(tiny):
    return bundles.load(tiny.workdir / "bundle")


@pytest.fixture(scope="module")
def model(tiny):
    return ergl_jax.load(tiny.workdir / "bundle")


def noise(seconds, seed=0, channels=None):
    """Whose level changes, so that windows differ."""
    shape = round(seconds * RATE) if channels is None else (round(seconds * RATE), channels)
    samples = np.random.default_rng(seed).normal(0, 0.1, shape)
    return (samples.T * np.linspace(0.02, 2, len(samples))).T.astype(np.float32)


def oracle(bundle, waveforms):
    """Windows (W, L) -> scene (W, scenes) and event (W, n) probabilities, straight from logits."""
    features = log_mel(np.asarray(waveforms), bundle.front_end)
    output = bundle.build().apply(bundle.variables, features, train=False)
    logits = np.asarray(output.scene_logits, np.float64) / bundle.temperature
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    events = 1 / (1 + np.exp(-np.asarray(output.event_logits, np.float64)))
    return weights / weights.sum(axis=1, keepdims=True), events


def numbers(result, bundle):
    """Its scenes and its events in the bundle's order."""
    scenes = [result.scenes[name] for name in bundle.scenes]
    return np.array(scenes), np.array([result.events[name] for name in bundle.events])


def assert_close(found, expected, atol=2e-6):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)


def assert_same(one, other, **changes):
    assert dataclasses.replace(one, **changes) == dataclasses.replace(other, **changes)


def test_a_clip_is_what_the_module_says_of_it(model, bundle):
    samples = noise(2)
    result = model.classify(samples, sample_rate=RATE)
    scenes, events = oracle(bundle, samples[None])
    assert_close(numbers(result, bundle), (scenes[0], events[0]))
    assert result.scene == bundle.scenes[scenes[0].argmax()]
    assert result.probability == result.scenes[result.scene] == max(result.scenes.values())
    for ranked in (result.scenes, result.events):
        assert list(ranked.values()) == sorted(ranked.values(), reverse=True)
    assert (result.start, result.stop, result.notes, result.name) == (0.0, 2.0, (), "")


def test_windows_of_a_long_recording_are_averaged(model, bundle):
    samples = noise(7.3)
    result = model.classify(samples, sample_rate=RATE)
    starts = [0, CLIP, 2 * CLIP, len(samples) - CLIP]  # the last one ends with the recording
    scenes, events = oracle(bundle, [samples[start : start + CLIP] for start in starts])
    assert np.ptp(events, axis=0).max() > 1e-3  # so that an average shows
    assert_close(numbers(result, bundle), (scenes.mean(axis=0), events.mean(axis=0)))
    assert [window.start for window in result.timeline] == pytest.approx([0, 2, 4, 5.3])
    assert [window.stop for window in result.timeline] == pytest.approx([2, 4, 6, 7.3])
    assert result.stop == pytest.approx(7.3)
    for window, *expected in zip(result.timeline, scenes, events, strict=True):
        assert_close(numbers(window, bundle), expected)
        alone = model.classify(
            samples[round(window.start * RATE) : round(window.stop * RATE)], sample_rate=RATE
        )
        assert_close(numbers(window, bundle), numbers(alone, bundle))


@pytest.mark.parametrize("seconds", [0.5, 2, 7.3, 40])
def test_a_file_is_its_samples(model, tmp_path, seconds):
    path = tmp_path / "noise.wav"
    soundfile.write(path, noise(seconds), RATE, subtype="FLOAT")
    found = model.classify(path)
    assert found.name == str(path)
    assert_same(found, model.classify(noise(seconds), sample_rate=RATE), name="")
    assert_same(found, model.classify(str(path)))


@pytest.mark.parametrize("rate", [8000, 44100])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_channels_are_averaged_and_rates_converted(model, bundle, tmp_path, rate, channels):
    samples = np.random.default_rng(1).normal(0, 0.1, (2 * rate, channels)).astype(np.float32)
    samples *= np.arange(1, channels + 1)  # taking one of them instead would show
    soundfile.write(tmp_path / "noise.wav", samples, rate, subtype="FLOAT")
    waveform = soxr.resample(samples.mean(axis=1), rate, RATE, quality="HQ")
    scenes, events = oracle(bundle, waveform[None])
    found = model.classify(samples, sample_rate=rate)
    assert_close(numbers(found, bundle), (scenes[0], events[0]), atol=1e-5)
    assert_same(found, model.classify(tmp_path / "noise.wav"), name="")


def test_a_list_is_each_of_it(model, tmp_path):
    """Files and samples, short and long, more windows than a batch holds."""
    soundfile.write(tmp_path / "a.wav", noise(3, seed=1), RATE, subtype="FLOAT")
    recordings = [noise(5), tmp_path / "a.wav", noise(0.3, seed=2), noise(21, seed=3), noise(2)]
    together = model.classify(recordings, sample_rate=RATE)
    assert [len(result.timeline) for result in together] == [3, 2, 1, 11, 1]
    for recording, found in zip(recordings, together, strict=True):
        alone = model.classify(recording, sample_rate=RATE)
        assert (found.name, found.stop, found.notes) == (alone.name, alone.stop, alone.notes)
        for one, other in zip((found, *found.timeline), (alone, *alone.timeline), strict=True):
            assert (one.start, one.stop) == (other.start, other.stop)
            assert_close(numbers(one, model.bundle), numbers(other, model.bundle))
    assert model.classify([]) == []


def test_one_that_fails_leaves_the_others(model, tmp_path):
    late = noise(30)
    late[-1] = np.nan
    soundfile.write(tmp_path / "late.wav", late, RATE, subtype="FLOAT")
    recordings = [noise(2), tmp_path / "none.wav", noise(20), tmp_path / "late.wav", noise(1)]
    results = list(model.classify_each(recordings, sample_rate=RATE))
    assert [each for each, _ in results] == recordings
    assert [type(result) for _, result in results] == [
        Classification,
        InputError,
        Classification,
        InputError,
        Classification,
    ]
    with pytest.raises(InputError, match="none.wav"):
        model.classify(recordings, sample_rate=RATE)


@pytest.mark.parametrize(
    ("samples", "notes"),
    [
        (np.zeros(CLIP, np.float32), ["silence"]),
        (np.full(CLIP, 0.9e-5, np.float32), ["silence"]),
        (np.full(CLIP, 1.1e-5, np.float32), []),
        (noise(1.5), ["1.5 s are filled with silence to 2 s"]),
        (np.zeros(100), ["silence", "0.00625 s are filled with silence"]),
    ],
)
def test_notes_say_what_a_reader_should_know(model, samples, notes):
    found = model.classify(samples, sample_rate=RATE).notes
    assert len(found) == len(notes)
    for note, expected in zip(found, notes, strict=True):
        assert note.startswith(expected)


@pytest.mark.parametrize("pad", ["zero", "repeat"])
def test_a_short_recording_is_filled_as_in_training(bundle, pad):
    samples = noise(0.7)
    filled = np.resize(samples, CLIP)
    if pad == "zero":
        filled[len(samples) :] = 0
    result = Model(dataclasses.replace(bundle, pad=pad)).classify(samples, sample_rate=RATE)
    scenes, events = oracle(bundle, filled[None])
    assert_close(numbers(result, bundle), (scenes[0], events[0]))
    assert ("itself again" in result.notes[0]) == (pad == "repeat")


@pytest.mark.parametrize("temperature", [0.1, 5.0])
def test_scenes_are_calibrated_by_the_temperature(bundle, temperature):
    changed = dataclasses.replace(bundle, temperature=temperature)
    result = Model(changed).classify(noise(2), sample_rate=RATE)
    scenes, events = oracle(changed, noise(2)[None])
    assert_close(numbers(result, bundle), (scenes[0], events[0]), atol=1e-5)
    at_one, _ = oracle(dataclasses.replace(bundle, temperature=1.0), noise(2)[None])
    assert np.abs(at_one - scenes).max() > 1e-3


def test_a_result_is_json(model):
    result = model.classify(noise(5), sample_rate=RATE)
    again = json.loads(json.dumps(result.to_dict()))
    assert again["scene"] == result.scene and again["probability"] == result.probability
    assert again["scenes"] == result.scenes and again["events"] == result.events
    assert [window["start"] for window in again["timeline"]] == [0, 2, 3]


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (noise(2), None, r"say classify\(samples, sample_rate=HZ\)"),
        (noise(2), 0, "sample_rate=0 must"),
        (noise(2), -16000, "sample_rate=-16000 must"),
        (noise(2), float("nan"), "sample_rate=nan must"),
        (noise(2), float("inf"), "sample_rate=inf must"),
        (noise(2), "16000", "sample_rate='16000' must"),
        (noise(2, channels=2).T, RATE, r"not \(2, 32000\): transpose"),
        (np.zeros(0), RATE, r"not empty, not \(0,\)"),
        (np.zeros((0, 2)), RATE, r"not empty, not \(0, 2\)"),
        (np.zeros((9, 2, 2)), RATE, r"not \(9, 2, 2\)"),
        (np.float32(1), RATE, r"not \(\)"),
        (None, RATE, "array of samples, not NoneType"),
        (np.zeros(CLIP, np.int16), RATE, "int16: make them floating point.*divide by 32768"),
        (np.zeros(CLIP, complex), RATE, "complex128"),
        (np.full(CLIP, np.nan), RATE, "samples: holds samples that are NaN"),
        (np.full(CLIP, 1e300), RATE, "samples: holds a sample of 1e"),
        (np.zeros(10), 1e7, "too short: none is left at 16000 Hz"),
    ],
)
def test_wrong_samples_are_a_line(model, samples, rate, message):
    with pytest.raises(InputError, match=message) as caught:
        model.classify(samples, sample_rate=rate)
    assert "\n" not in str(caught.value)


def test_a_bundle_without_scenes_is_refused(bundle):
    """As a PANN's, which only tags."""
    with pytest.raises(InputError, match="names no scenes: it tags events"):
        Model(dataclasses.replace(bundle, scenes=()))


def test_weights_that_are_not_finite_are_told(bundle):
    variables = jax.tree.map(np.copy, dict(bundle.variables))
    variables["params"]["head"]["scene"]["bias"][0] = np.nan
    broken = Model(dataclasses.replace(bundle, variables=variables))
    with pytest.raises(InputError, match="outputs are not finite: its weights are damaged"):
        broken.classify(noise(2), sample_rate=RATE)


def test_a_second_recording_compiles_nothing(bundle, tmp_path, caplog):
    """And any number of windows, from any number of recordings, uses two programs at most."""

    def compiled(seconds):
        caplog.clear()
        path = tmp_path / f"{seconds}.wav"
        soundfile.write(path, noise(seconds), RATE, subtype="FLOAT")
        fresh.classify([path, path] if seconds == 6 else path)
        return sum(record.message.startswith("Compiling ") for record in caplog.records)

    fresh = Model(bundle)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        assert compiled(2) == 1
        assert compiled(2) == compiled(1) == compiled(5) == 0  # one, one and three windows
        assert compiled(11) <= 1
        assert [compiled(seconds) for seconds in (6, 9, 14, 15, 31.5, 50)] == [0] * 6
