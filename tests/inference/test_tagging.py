"""`Model.tag`: a module's events, of files and samples, over time too."""

import json

import numpy as np
import pytest
import soundfile
from made_systems import apply
from test_model import untrained

import ergl_jax
from ergl_jax.audio import log_mel
from ergl_jax.errors import InputError

RATE = 16000  # of the tiny run's front end
CLIP = 2 * RATE


@pytest.fixture(scope="module")
def model(tiny):
    return ergl_jax.load(tiny.workdir / "bundle")


@pytest.fixture(scope="module")
def pann(model):
    return ergl_jax.Model(untrained(model.bundle, "pann", scenes=()))


def noise(seconds, seed=0):
    """Of growing level, so that windows differ."""
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE))
    return (samples * np.linspace(0.02, 2, len(samples))).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def values(model, ranking):
    """In the order of the model's events."""
    return [ranking[event] for event in model.events]


@pytest.mark.parametrize("name", ["model", "pann"])
def test_windows_mean_and_maximum_are_the_modules(request, name):
    model, samples = request.getfixturevalue(name), noise(7.3)
    tags = model.tag(samples, sample_rate=RATE)
    starts = [0, CLIP, 2 * CLIP, len(samples) - CLIP]  # the last window ends with the recording
    windows = np.array([samples[start : start + CLIP] for start in starts])
    output = apply(model.module, model.variables, log_mel(windows, model.bundle.front_end))
    expected = sigmoid(output.event_logits)
    assert np.ptp(expected, axis=0).max() > 1e-3
    np.testing.assert_allclose(values(model, tags.events), expected.mean(axis=0), atol=2e-6)
    np.testing.assert_allclose(values(model, tags.maxima), expected.max(axis=0), atol=2e-6)
    for window, start, events in zip(tags.timeline, starts, expected, strict=True):
        assert (window.start, window.silent) == (pytest.approx(start / RATE), False)
        assert window.stop == pytest.approx((start + CLIP) / RATE)
        np.testing.assert_allclose(values(model, window.events), events, atol=2e-6)
    for ranking in (tags.events, tags.maxima):
        assert list(ranking.values()) == sorted(ranking.values(), reverse=True)
    assert (tags.start, tags.stop, tags.name, tags.notes) == (0.0, 7.3, "", ())


def test_events_are_those_of_classify(model):
    samples = noise(5)
    tags = model.tag(samples, sample_rate=RATE)
    events = model.classify(samples, sample_rate=RATE).events
    assert dict(tags.events) == pytest.approx(dict(events), abs=1e-6)


def test_an_ergl_locates_events_by_its_tokens(model):
    samples = noise(2)
    activity = model.tag(samples, sample_rate=RATE).activity
    times = model.explain(samples, sample_rate=RATE).activations.event_times
    np.testing.assert_allclose(activity.probabilities, times.T, atol=1e-5)
    steps = len(activity.probabilities)
    assert steps > 1 and activity.step == pytest.approx(2 / steps, rel=0.1)
    assert activity.edges[0] == 0 and activity.edges[-1] == 2.0
    np.testing.assert_allclose(np.diff(activity.edges)[:-1], activity.step)


def test_a_pann_that_does_not_locate_events_has_a_step_a_window(pann):
    tags = pann.tag(noise(5), sample_rate=RATE)
    np.testing.assert_allclose(tags.activity.edges, [0, 2, 4, 5])
    assert tags.activity.step == 2.0
    windows = [values(pann, window.events) for window in tags.timeline]
    np.testing.assert_allclose(tags.activity.probabilities, windows, atol=1e-6)


@pytest.mark.parametrize("variant", ["decision_level_max", "decision_level_att"])
def test_onsets_are_those_of_pytorchs_frames(tmp_path, variant):
    """The stretches of 10 ms frames that reach the threshold, in PyTorch's framewise output."""
    torch = pytest.importorskip("torch")
    import panns_checkpoint
    import torch_panns

    theirs = torch_panns.PANN("cnn14", "panns_16k", 32, variant=variant)
    path = tmp_path / f"Cnn14_DecisionLevel{variant[-3:].title()}.pth"  # the port goes by the name
    bundle = panns_checkpoint.port(torch_panns.save(theirs, path)).bundle
    clip = noise(10) * np.repeat([1, 0.01, 1, 0.1, 1], CLIP).astype(np.float32)
    tags = ergl_jax.Model(bundle).tag(clip, sample_rate=RATE)
    events, _, frames = (x.numpy()[0] for x in theirs(torch.from_numpy(clip[None])))
    np.testing.assert_allclose([tags.events[x] for x in bundle.events], events, atol=1e-4)
    at = np.searchsorted(tags.activity.edges[1:-1], 0.01 * np.arange(1001) + 1e-6)
    np.testing.assert_allclose(tags.activity.probabilities[at], frames, atol=1e-4)
    near = np.abs(frames - 0.5).min(axis=0) < 1e-3  # these may fall on either side of it
    expected = []
    for name, column, unsure in zip(bundle.events, (frames >= 0.5).T, near, strict=True):
        padded = np.r_[False, column, False]
        starts, ends = (
            np.flatnonzero(x) for x in (padded[1:] > padded[:-1], padded[1:] < padded[:-1])
        )
        if not unsure:
            expected += [(a, b, name) for a, b in zip(starts / 100, ends / 100, strict=True)]
    found = [span for span in tags.activity.spans() if not near[bundle.events.index(span.event)]]
    assert [event for *_, event in found] == [event for *_, event in sorted(expected)]
    found, expected = ([span[:2] for span in each] for each in (found, sorted(expected)))
    np.testing.assert_allclose(found, np.minimum(expected, 10), atol=1e-9)
    assert len({tuple(span) for span in found}) > 3


def test_silent_windows_are_left_out(model):
    sound = noise(2)
    alone = model.tag(sound, sample_rate=RATE)
    tags = model.tag(np.r_[np.zeros(CLIP, np.float32), sound], sample_rate=RATE)
    assert [window.silent for window in tags.timeline] == [True, False]
    assert tags.notes == ("1 of its 2 windows are silence, and left out",)
    for ranking in ("events", "maxima"):
        found, expected = (dict(getattr(x, ranking)) for x in (tags, alone))
        assert found == pytest.approx(expected, abs=1e-5)
    steps = len(alone.activity.probabilities)
    assert np.isnan(tags.activity.probabilities[:steps]).all()
    assert all(span.onset >= 2 for span in tags.activity.spans(0.0))
    silence = model.tag(np.zeros(CLIP, np.float32), sample_rate=RATE)
    assert np.isfinite(silence.activity.probabilities).all()


def test_files_folders_and_lists(model, tmp_path):
    for name, seconds in (("a.wav", 1), ("b.flac", 3)):
        soundfile.write(tmp_path / name, noise(seconds), RATE)
    first, second = model.tag(tmp_path)
    assert [first.name, second.name] == [str(tmp_path / x) for x in ("a.wav", "b.flac")]
    assert first.notes == ("padded from 1 to 2 s with silence",)
    assert first.activity.edges[-1] == 1.0
    assert [dict(x.events) for x in model.tag([tmp_path / "b.flac"])] == [dict(second.events)]
    again = json.loads(json.dumps(second.to_dict(top=2)))
    assert again["events"] == dict(list(second.events.items())[:2])
    assert [len(window["events"]) for window in again["timeline"]] == [2, 2]
    found = dict(model.tag_each([tmp_path / "a.wav", tmp_path / "none.wav"]))
    assert isinstance(found[tmp_path / "none.wav"], InputError)
    with pytest.raises(InputError, match="none.wav can't be read"):
        model.tag(tmp_path / "none.wav")


def test_a_model_without_events_is_refused(model):
    other = ergl_jax.Model(untrained(model.bundle, "cnn"))
    for tag in (other.tag, other.tag_each):
        with pytest.raises(InputError, match="'cnn', predicts no events: tag recordings with an"):
            tag(noise(2), sample_rate=RATE)
