"""The synthetic corpus: same clip, same bytes; true labels; pairs that only relations separate."""

import pickle

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ergl_jax.datasets import synthetic
from ergl_jax.datasets.synthetic import (
    DELAY_PAIRS,
    DELAYS,
    EVENTS,
    RELATIONAL_PAIRS,
    SCENES,
    TEST_LOCATIONS,
    TRAIN_LOCATIONS,
    Synthesis,
    corpus,
)
from ergl_jax.errors import InputError
from ergl_jax.labels import AUDIOSET

RATE = 16000


def small(seed=0, train=2, test=1, clip_seconds=3.0):
    counts = dict(train_clips_per_scene=train, test_clips_per_scene=test)
    return corpus(seed=seed, **counts, clip_seconds=clip_seconds)


@pytest.fixture(scope="module")
def labelled():
    """200 clips per scene; no waveform is made."""
    return small(train=200, test=12, clip_seconds=5.0)


def pair_clips(clips, pair):
    chosen = [clip for clip in clips if SCENES[clip.scene] in pair]
    return chosen, np.array([SCENES[clip.scene] == pair[0] for clip in chosen])


def sounding(intervals, clip_seconds, steps=2000):
    """Whether any of the intervals holds the middle of each of `steps` equal steps, (steps,)."""
    t = (np.arange(steps) + 0.5) * clip_seconds / steps
    return np.any((intervals[:, :1] <= t) & (t < intervals[:, 1:]), axis=0)


def test_shape_of_the_corpus():
    made = small(train=13, test=5)
    assert len(SCENES) == 10 and (made.scenes, made.events) == (SCENES, EVENTS)
    assert sorted(EVENTS, key=AUDIOSET.index) == list(EVENTS)
    assert len({clip.name for clip in made.clips}) == len(made.clips)
    for split, count, locations in (("train", 13, TRAIN_LOCATIONS), ("test", 5, TEST_LOCATIONS)):
        clips = [clip for clip in made.clips if clip.split == split]
        assert np.bincount([clip.scene for clip in clips]).tolist() == [count] * 10
        assert len({clip.group for clip in clips}) == locations
    for group in {clip.group for clip in made.clips}:
        assert {clip.scene for clip in made.clips if clip.group == group} == set(range(10))


def test_a_clip_depends_on_the_seed_and_its_name_alone():
    few, many = small(train=2, test=1), small(train=3, test=2)
    by_name = {clip.name: clip for clip in many.clips}
    assert {clip.name for clip in few.clips} < set(by_name)
    for clip in few.clips[::3]:
        twin = pickle.loads(pickle.dumps(by_name[clip.name]))
        assert np.array_equal(clip.events, twin.events)
        assert clip.load(RATE).tobytes() == twin.load(RATE).tobytes()
    clips = few.clips + small(seed=1).clips
    assert len({clip.load(RATE).tobytes() for clip in clips}) == len(clips)
    changes = {}, {"seed": 1}, {"train": 3}, {"test": 2}, {"clip_seconds": 2.5}
    assert len({small(**change).fingerprint for change in changes}) == 5


@pytest.mark.parametrize("rate", [16000, 44100])
def test_waveforms(rate):
    for clip in small(train=1, clip_seconds=2.2).clips:
        wave = clip.load(rate)
        assert wave.dtype == np.float32 and wave.shape == (round(2.2 * rate),)
        assert 0.01 < np.abs(wave).max() <= 1


def test_clips_of_less_than_two_seconds_are_refused():
    for seconds in (1.9, float("nan"), float("inf")):
        with pytest.raises(InputError, match=f"^data.clip_seconds is {seconds}"):
            small(clip_seconds=seconds)


def test_two_sample_rates_give_the_same_clip():
    """The level in eighths of a second is alike: events start, stop and ring at the same times."""
    for clip in small(train=1, test=1, clip_seconds=4.0).clips:
        low, high = (
            np.log(np.square(clip.load(rate).reshape(32, rate // 8)).mean(axis=1))
            for rate in (16000, 32000)
        )
        assert np.corrcoef(low, high)[0, 1] > 0.9, clip.name


def test_shares_are_the_activity(labelled):
    for clip in labelled.clips[::7]:
        activity = clip.load.activity()
        for event, share in zip(EVENTS, clip.events, strict=True):
            intervals = activity.get(event, np.zeros((0, 2)))
            assert np.mean(sounding(intervals, 5.0)) == pytest.approx(share, abs=0.01)
            assert np.all(np.diff(intervals.ravel()) >= 0)  # in order, never overlapping
            assert np.all((intervals >= 0) & (intervals <= 5.0 + 1e-9))
        assert set(activity) <= set(EVENTS)
        assert clip.events.dtype == np.float32 and 0 < clip.events.max() <= 1


def test_locations_never_share_a_value():
    """On every axis the ranges of two locations are disjoint, so train's and test's are."""
    takes = np.array(
        [
            [Synthesis(3, 0, location, take, 2.0).coordinates() for take in range(20)]
            for location in range(TRAIN_LOCATIONS + TEST_LOCATIONS)
        ]
    )  # (locations, takes, axes)
    assert np.all(np.abs(takes) <= 1)
    low, high = np.sort(takes.min(axis=1), axis=0), np.sort(takes.max(axis=1), axis=0)
    assert np.all(high[:-1] < low[1:])
    train, test = (
        {c.group for c in small(12, 12, 12).clips if c.split == s} for s in ("train", "test")
    )
    assert not train & test


@pytest.mark.parametrize("pair", RELATIONAL_PAIRS)
def test_shares_and_presence_cannot_separate_a_pair(labelled, pair):
    clips, is_over = pair_clips(labelled.clips, pair)
    shares = np.array([clip.events for clip in clips])
    bursts = np.array(
        [[len(clip.load.activity().get(event, ())) for event in EVENTS] for clip in clips]
    )
    for model in (
        make_pipeline(StandardScaler(), LogisticRegression()),
        RandomForestClassifier(60, random_state=0),
    ):
        # 424 clips: chance is 0.5, its standard deviation 0.024.
        assert cross_val_score(model, np.hstack([shares, bursts]), is_over, cv=5).mean() < 0.6


@pytest.mark.parametrize("pair", RELATIONAL_PAIRS)
def test_activity_separates_a_pair(labelled, pair):
    clips, is_over = pair_clips(labelled.clips, pair)
    overlap = []
    for clip in clips:
        activity = clip.load.activity()
        first, second = (sounding(activity[event], 5.0) for event in synthetic.related(pair[0]))
        overlap.append((first & second).sum() / min(first.sum(), second.sum()))
        bursts = [len(activity[event]) for event in synthetic.related(pair[0])]
        assert bursts[0] == bursts[1] >= 3
        lengths = np.concatenate([np.diff(activity[event]) for event in synthetic.related(pair[0])])
        assert 0.29 < lengths.min() and lengths.max() < 1.0
    overlap = np.array(overlap)
    assert overlap[is_over].min() > 0.9 and overlap[~is_over].max() == 0


@pytest.mark.parametrize("scene", range(len(synthetic.SCENES)))
def test_stems_are_the_parts_of_the_waveform(scene):
    clip = synthetic.Synthesis(0, scene, 3, 1, 2.0)
    background, stems = clip.stems(16000)
    assert list(stems) == list(clip.activity())
    np.testing.assert_allclose(background + sum(stems.values()), clip(16000), atol=1e-6)
    for event, bursts in clip.activity().items():
        first = round(bursts[0][0] * 16000)  # silent before its first burst, and not after
        assert np.abs(stems[event][:first]).max(initial=0) < 1e-6 < np.abs(stems[event]).max()


@pytest.fixture(scope="module")
def delayed():
    return corpus(
        "delays", seed=0, train_clips_per_scene=100, test_clips_per_scene=4, clip_seconds=10.0
    )


def test_one_event_sounds_a_while_after_the_other(delayed):
    assert delayed.name == "delays" and delayed.scenes == DELAYS and not set(DELAYS) & set(SCENES)
    delays = []
    for clip in delayed.clips:
        first, second = synthetic.related(DELAYS[clip.scene])
        activity = clip.load.activity()
        ((start, stop),), ((again, end),) = activity[first], activity[second]
        assert 0 <= start < stop and end <= 10.0
        delays.append(again - stop)
    assert 1.5 <= min(delays) < 1.6 and 2.4 < max(delays) <= 2.5


@pytest.mark.parametrize("pair", DELAY_PAIRS)
def test_only_the_order_separates_a_pair_of_delays(delayed, pair):
    """Shares of events do not; which of the two comes first does."""
    assert synthetic.related(pair[0]) == synthetic.related(pair[1])[::-1]
    clips = [clip for clip in delayed.clips if DELAYS[clip.scene] in pair]
    truth = np.array([DELAYS[clip.scene] == pair[0] for clip in clips])
    shares = np.stack([clip.load.shares() for clip in clips])
    guess = cross_val_score(LogisticRegression(), shares, truth, cv=5)
    assert guess.mean() < 0.65
    first, second = synthetic.related(pair[0])
    order = [clip.load.activity()[first] < clip.load.activity()[second] for clip in clips]
    assert (np.array([x.all() for x in order]) == truth).all()


def test_delays_need_time():
    with pytest.raises(InputError, match="5 or more"):
        corpus("delays", seed=0, train_clips_per_scene=1, test_clips_per_scene=1, clip_seconds=4.0)


def test_speech_is_finite():
    """Its envelope is a power of a sine, which float32 rounds below zero in this clip."""
    clip = Synthesis(1, SCENES.index("home"), 2, 2, 5.0)
    assert "Speech" in clip.activity() and np.isfinite(clip(RATE)).all()
