"""A trained model classifies files and samples of any sample rate and length."""

import dataclasses
import json
import logging
from functools import partial

import jax
import numpy as np
import pytest
import soundfile
import soxr
from made_recordings import encode

import ergl_jax
from ergl_jax.audio import get_front_end, log_mel
from ergl_jax.errors import InputError
from ergl_jax.inference.classify import Classification, Model
from ergl_jax.inference.embedding import output_and_features
from ergl_jax.known import KEEP

RATE = 16000  # of the tiny run's front end
CLIP = 2 * RATE


@pytest.fixture(scope="module")
def model(tiny):
    return ergl_jax.load(tiny.workdir / "bundle")


def noise(seconds, seed=0):
    """Of growing level, so that windows differ."""
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE))
    return (samples * np.linspace(0.02, 2, len(samples))).astype(np.float32)


def oracle(bundle, waveforms):
    """Windows (W, L) -> scene (W, scenes) and event (W, n) probabilities, in float64."""
    features = log_mel(np.asarray(waveforms), bundle.front_end)
    output = jax.jit(partial(bundle.build().apply, train=False))(bundle.variables, features)
    logits = np.asarray(output.scene_logits, np.float64) / bundle.temperature
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    events = 1 / (1 + np.exp(-np.asarray(output.event_logits, np.float64)))
    return weights / weights.sum(axis=1, keepdims=True), events


def assert_predicts(result, bundle, scenes, events, atol=2e-6):
    """Arrays (scenes,) and (n,) in the bundle's order."""
    found = [result.scenes[name] for name in bundle.scenes]
    np.testing.assert_allclose(found, scenes, rtol=0, atol=atol)
    found = [result.events[name] for name in bundle.events]
    np.testing.assert_allclose(found, events, rtol=0, atol=atol)


def write(path, samples, rate=RATE):
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def test_a_clip_gets_the_modules_probabilities(model):
    bundle, samples = model.bundle, noise(2)
    result = model.classify(samples, sample_rate=RATE)
    (scenes,), (events,) = oracle(bundle, samples[None])
    assert_predicts(result, bundle, scenes, events)
    assert result.scene == bundle.scenes[scenes.argmax()]
    assert result.probability == result.scenes[result.scene] == max(result.scenes.values())
    for ranked in (result.scenes, result.events):
        assert list(ranked.values()) == sorted(ranked.values(), reverse=True)
    assert (result.start, result.stop, result.notes, result.name) == (0.0, 2.0, (), "")


def test_windows_of_a_long_recording_are_averaged(model):
    samples = noise(7.3)
    result = model.classify(samples, sample_rate=RATE)
    starts = [0, CLIP, 2 * CLIP, len(samples) - CLIP]  # the last window ends with the recording
    scenes, events = oracle(model.bundle, [samples[start : start + CLIP] for start in starts])
    assert np.ptp(events, axis=0).max() > 1e-3
    assert_predicts(result, model.bundle, scenes.mean(axis=0), events.mean(axis=0))
    for window, *expected in zip(result.timeline, scenes, events, strict=True):
        assert_predicts(window, model.bundle, *expected)
    assert [window.start for window in result.timeline] == pytest.approx([0, 2, 4, 5.3])
    assert [window.stop for window in result.timeline] == pytest.approx([2, 4, 6, 7.3])
    again = json.loads(json.dumps(result.to_dict()))
    assert again["scene"] == (result.scene if result.known else None)
    assert again["probability"] == result.probability
    assert again["scenes"] == result.scenes and again["events"] == result.events
    assert [window["start"] for window in again["timeline"]] == [0, 2, 4, pytest.approx(5.3)]


def test_a_resampled_recording_of_just_a_clip_is_not_filled(model, tmp_path):
    front_end = get_front_end("paper")
    bundle = dataclasses.replace(model.bundle, front_end=front_end, clip_seconds=10.0)
    path = write(tmp_path / "a.wav", np.resize(noise(2), 10 * 48000), 48000)
    result = Model(bundle).classify(path)
    assert (result.stop, result.timeline[0].stop, result.notes) == (10.0, 10.0, ())


def test_distances_of_windows_are_averaged(model):
    """A window's alone is that of the features that `fit` had."""
    bundle, samples = model.bundle, noise(4)
    apply = jax.jit(partial(output_and_features, bundle.build()))
    features = [
        apply(bundle.variables, log_mel(part[None], bundle.front_end))[1]
        for part in (samples[:CLIP], samples[CLIP:])
    ]
    expected = [bundle.known.distance(np.asarray(x)).item() for x in features]
    result = model.classify(samples, sample_rate=RATE)
    assert result.distance == pytest.approx(np.mean(expected), rel=1e-4)
    assert result.max_distance == bundle.known.limit(KEEP)


def test_what_is_too_far_is_a_guess(model):
    samples = noise(2)
    distance = model.classify(samples, sample_rate=RATE).distance
    for limit, known in ((distance - 0.01, False), (distance + 0.01, True)):
        limits = dataclasses.replace(model.bundle.known, distances=np.full(20, limit, np.float32))
        bundle = dataclasses.replace(model.bundle, known=limits)
        result = Model(bundle).classify(samples, sample_rate=RATE)
        assert result.known == known and result.scene in model.scenes
        assert result.to_dict()["scene"] == (result.scene if known else None)
        assert ("None of the model's 10 classes: unlike" in str(result).splitlines()[1]) != known
        kept = Model(bundle, keep=1).classify(samples, sample_rate=RATE)
        assert kept.known and kept.to_dict()["max_distance"] is None


@pytest.mark.parametrize(("rate", "channels"), [(8000, 3), (44100, 2)])
def test_channels_are_averaged_and_rates_converted(model, tmp_path, rate, channels):
    samples = np.random.default_rng(1).normal(0, 0.1, (2 * rate, channels)).astype(np.float32)
    samples *= np.arange(1, channels + 1)
    waveform = soxr.resample(samples.mean(axis=1), rate, RATE, quality="HQ")
    (scenes,), (events,) = oracle(model.bundle, waveform[None])
    result = model.classify(samples, sample_rate=rate)
    assert_predicts(result, model.bundle, scenes, events, atol=1e-5)
    path = write(tmp_path / "noise.wav", samples, rate)
    assert model.classify(path) == dataclasses.replace(result, name=str(path))


def test_a_list_is_classified_one_by_one(model, tmp_path):
    """Files and samples, short and long, with more windows than a batch holds."""
    path = write(tmp_path / "a.wav", noise(3, seed=1))
    recordings = [noise(5), path, noise(0.3, seed=2), noise(21, seed=3), str(path)]
    together = model.classify(recordings, sample_rate=RATE)
    assert [len(result.timeline) for result in together] == [3, 2, 1, 11, 2]
    for recording, found in zip(recordings, together, strict=True):
        alone = model.classify(recording, sample_rate=RATE)
        assert (found.name, found.stop, found.notes) == (alone.name, alone.stop, alone.notes)
        for one, other in zip((found, *found.timeline), (alone, *alone.timeline), strict=True):
            assert (one.start, one.stop) == (other.start, other.stop)
            assert one.scenes == pytest.approx(other.scenes, abs=2e-6)
            assert one.events == pytest.approx(other.events, abs=2e-6)
    assert model.classify([]) == []


def test_a_failing_recording_does_not_stop_the_others(model, tmp_path):
    late = noise(30)
    late[-1] = np.nan
    late = write(tmp_path / "late.wav", late)
    recordings = [noise(2), tmp_path / "none.wav", noise(20), late, noise(1)]
    results = list(model.classify_each(recordings, sample_rate=RATE))
    assert [each for each, _ in results] == recordings
    types = [type(result) for _, result in results]
    assert types == [Classification, InputError, Classification, InputError, Classification]
    with pytest.raises(InputError, match="none.wav"):
        model.classify(recordings, sample_rate=RATE)


def test_silent_and_short_recordings_have_notes(model):
    def notes(samples):
        return model.classify(samples, sample_rate=RATE).notes

    (note,) = notes(np.full(CLIP, 0.9e-5, np.float32))
    assert note.startswith("silence")
    assert notes(np.full(CLIP, 1.1e-5, np.float32)) == ()
    assert notes(noise(1.5)) == ("padded from 1.5 to 2 s with silence",)
    assert len(notes(np.zeros(100))) == 2
    short, longer = (model.classify(noise(x), sample_rate=RATE) for x in (0.02, 1.04))
    assert str(short).startswith("recording, 0.02 s\n")
    assert str(longer).startswith("recording, 1.0 s\n")


@pytest.mark.parametrize(
    "name, codec", [("a.mp3", "libmp3lame"), ("a.m4a", "aac"), ("a.webm", "libopus")]
)
def test_a_compressed_recording_is_classified_as_its_wav(model, tmp_path, name, codec):
    rate = 48000
    t = np.arange(6 * rate) / rate
    samples = noise(6 * rate / RATE)[: len(t)] * 0.2 + 0.3 * np.sin(2000 * t * (1 + 0.1 * t))
    plain = model.classify(write(tmp_path / "a.wav", samples.astype(np.float32), rate))
    found = model.classify(encode(tmp_path / name, samples, rate, codec))
    assert found.stop == pytest.approx(plain.stop, abs=0.05) and found.notes == ()
    assert found.scene == plain.scene
    assert found.scenes == pytest.approx(plain.scenes, abs=0.02)


def test_a_channel_is_chosen(model, tmp_path):
    left, right = noise(2), noise(2, seed=1)
    stereo = np.stack([left, right], axis=1)
    path = write(tmp_path / "stereo.wav", stereo)
    wanted = {"left": left, "right": right, "mix": stereo.mean(axis=1), None: stereo.mean(axis=1)}
    for channel, samples in wanted.items():
        expected = model.classify(samples, sample_rate=RATE)
        assert model.classify(stereo, sample_rate=RATE, channel=channel) == expected
        named = dataclasses.replace(expected, name=str(path))
        assert model.classify(path, channel=channel) == named
    with pytest.raises(InputError, match="channel='centre' is not one of: left, right, mix"):
        model.classify(path, channel="centre")


def test_samples_of_any_float_type_are_classified(model):
    samples = noise(2).astype(np.float16)
    expected = model.classify(samples.astype(np.float32), sample_rate=RATE)
    for kind in (np.float16, np.float64, np.longdouble):
        assert model.classify(samples.astype(kind), sample_rate=RATE) == expected


@pytest.mark.parametrize(
    "samples, note",
    [
        (np.stack([noise(2), -noise(2)], axis=1), "choose another with --channel"),
        (np.rint(32768 * noise(2)), "full scale is 1"),
    ],
)
def test_unusual_samples_have_notes(model, samples, note):
    (found,) = model.classify(samples, sample_rate=RATE).notes
    assert note in found


def test_padding_and_temperature_are_the_bundles(model):
    bundle = dataclasses.replace(model.bundle, pad="repeat", temperature=5.0)
    samples = noise(0.7)
    result = Model(bundle).classify(samples, sample_rate=RATE)
    (scenes,), (events,) = oracle(bundle, np.resize(samples, CLIP)[None])
    assert_predicts(result, bundle, scenes, events)
    assert "repeating" in result.notes[0]
    zeros = np.pad(samples, (0, CLIP - len(samples)))
    (scenes,), (events,) = oracle(model.bundle, zeros[None])
    assert_predicts(model.classify(samples, sample_rate=RATE), bundle, scenes, events)


def test_wrong_samples_are_refused(model):
    for samples, rate, message in (
        (noise(2), None, r"classify\(samples, sample_rate=HZ\)"),
        (noise(2), 0, "sample_rate=0"),
        (noise(2), float("nan"), "sample_rate=nan"),
        (noise(2), "16000", "sample_rate='16000'"),
        (np.zeros((2, CLIP)), RATE, r"\(2, 32000\)"),
        (np.zeros((0, 2)), RATE, "not empty"),
        (None, RATE, "samples are object"),
        (np.zeros(CLIP, np.int16), RATE, "int16.*divide"),
        (np.full(CLIP, np.nan), RATE, "samples: .* NaN"),
        (np.zeros(10), 1e7, "too short, no sample is left at 16000 Hz"),
    ):
        with pytest.raises(ValueError, match=message):
            model.classify(samples, sample_rate=rate)


def test_damaged_weights_are_refused(model):
    variables = jax.tree.map(np.copy, dict(model.bundle.variables))
    variables["params"]["head"]["scene"]["bias"][0] = np.nan
    broken = Model(dataclasses.replace(model.bundle, variables=variables))
    with pytest.raises(InputError, match="outputs are not finite: its weights are damaged"):
        broken.classify(noise(2), sample_rate=RATE)


def test_two_programs_serve_any_number_of_windows(model, tmp_path, caplog):
    def compiled(seconds, files=1):
        caplog.clear()
        fresh.classify([write(tmp_path / "a.wav", noise(seconds))] * files)
        return sum(record.message.startswith("Compiling ") for record in caplog.records)

    fresh = Model(model.bundle)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        assert compiled(2) == 1
        assert compiled(2) == compiled(1) == compiled(5) == 0  # one, one and three windows
        assert compiled(11) <= 1
        assert compiled(6, files=2) == compiled(9) == compiled(14) == compiled(31.5) == 0


def test_silent_windows_are_left_out(model):
    rate, rng = model.bundle.front_end.sample_rate, np.random.default_rng(0)
    length = model.bundle.front_end.num_samples(model.bundle.clip_seconds)
    sound = rng.normal(0, 0.1, length).astype(np.float32)
    alone = model.classify(sound, sample_rate=rate)
    found = model.classify(np.r_[np.zeros(2 * length, np.float32), sound], sample_rate=rate)
    assert [window.silent for window in found.timeline] == [True, True, False]
    assert found.notes == ("2 of its 3 windows are silence, and left out",)
    assert dict(found.scenes) == pytest.approx(dict(alone.scenes), abs=1e-5)
    with pytest.warns(match="1 of its 2 windows"):
        vector = model.embed(np.r_[np.zeros(length, np.float32), sound], sample_rate=rate)
    np.testing.assert_allclose(vector, model.embed(sound, sample_rate=rate), atol=1e-5)
