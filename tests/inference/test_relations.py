"""Relations of events in time: made activities, and what is said of them."""

import numpy as np
import pytest

from ergl_jax.datasets import synthetic
from ergl_jax.inference.narrative import in_time
from ergl_jax.inference.relations import NEARLY, related_pairs, relation, strongest
from ergl_jax.models.dynamic import LAGS, event_graph

STEP, FRAMES = 0.08, 250  # seconds, of 20 s
NAMES = ("Bell", "Dog")


def bursts(*starts, seconds=0.4, frames=FRAMES):
    """An activity (frames,) that is 1 for some seconds after each start, in seconds."""
    time = STEP * np.arange(frames)
    return np.float32(sum((time >= start - 1e-6) & (time < start + seconds) for start in starts))


def related(bell, dog):
    """The Relation of two activities."""
    edges = np.asarray(event_graph(np.stack([bell, dog])[None], STEP)[1])[0]
    return relation(edges, (0, 1), 0.0, LAGS)


def test_events_that_coincide_sound_at_the_same_time():
    found = related(bursts(2, 9, 15), bursts(2, 9, 15))
    assert found.lag == 0 and found.correlation > 0.4
    assert in_time(found, NAMES) == "“Bell” and “Dog” sound at the same time"


@pytest.mark.parametrize("delay", [0.4, 0.64, 1.04, 1.52, 2.24])
def test_the_lag_is_the_delay_between_the_models_lags_too(delay):
    times = np.array([2, 9, 15])
    found = related(bursts(*times), bursts(*(times + delay)))
    assert found.lag == pytest.approx(-delay, abs=0.1)  # of Bell, which is earlier
    text = f"“Dog” follows “Bell” by about {-found.lag:.1f} s"
    assert in_time(found, NAMES) == text
    other = related(bursts(*(times + delay)), bursts(*times))
    assert other.lag == pytest.approx(-found.lag, abs=1e-4)
    assert in_time(other, NAMES) == f"“Bell” follows “Dog” by about {other.lag:.1f} s"


def test_events_that_alternate_take_turns():
    on = np.float32(np.arange(FRAMES) % 100 < 50)  # 4 s each
    found = related(on, 1 - on)
    assert found.lag == 0 and found.correlation < -0.8
    assert in_time(found, NAMES) == "“Bell” and “Dog” take turns"


@pytest.mark.parametrize("period", [2.0, 2.8, 4.0])
def test_alternation_is_not_a_lag_of_half_a_period(period):
    """Though the events follow each other by it, with a larger correlation than without a lag."""
    starts, seconds = np.arange(0, 20, period), 0.2 * period
    found = related(
        bursts(*starts, seconds=seconds), bursts(*(starts + period / 2), seconds=seconds)
    )
    assert found.correlations.max() > -found.correlation / NEARLY
    assert in_time(found, NAMES) == "“Bell” and “Dog” take turns"


@pytest.mark.parametrize("scene", synthetic.CORPORA["synthetic"][4:])
def test_the_words_for_known_activities(scene):
    """Of the synthetic corpus's clips of 5 s, where it is known when each event sounds."""
    for location, take in np.ndindex(4, 3):
        known = synthetic.Synthesis(
            1, synthetic.SCENES.index(scene), location, take, 5.0
        ).activity()
        first, second = (
            sum(bursts(start, seconds=stop - start, frames=62) for start, stop in known[event])
            for event in synthetic.related(scene)
        )
        words = "sound at the same time" if "_over_" in scene else "take turns"
        assert in_time(related(first, second), NAMES) == f"“Bell” and “Dog” {words}"


def test_an_event_that_is_missing_after_another():
    """Rain sounds throughout, but for a pause 1.5 s after each bell."""
    times = np.array([2, 7, 12])
    found = related(bursts(*times), 1 - bursts(*(times + 1.5)))
    assert found.correlation < -0.3
    assert in_time(found, ("Bell", "Rain")) == "“Rain” rarely sounds about 1.5 s after “Bell”"


def test_events_without_a_relation_in_time():
    found = related(bursts(2), np.ones(FRAMES, np.float32))
    assert in_time(found, NAMES) == "“Bell” and “Dog” have no clear relation in time"


def test_the_last_lag_is_no_vertex():
    edges = np.zeros((2, 2, len(LAGS)))
    edges[0, 1] = np.linspace(0, 0.6, len(LAGS))
    assert relation(edges, (0, 1), 0.0, LAGS).lag == LAGS[-1]


def test_one_curve_has_the_lags_of_both_edges():
    rng = np.random.default_rng(0)
    edges = rng.normal(size=(3, 3, len(LAGS)))
    edges[..., 0] += edges[..., 0].T  # two events correlate without a lag in one way
    one, other = (relation(edges, pair, 0.0, LAGS) for pair in ((0, 2), (2, 0)))
    for k, lag in enumerate(LAGS):
        assert one.correlations[one.lags == lag] == edges[0, 2, k]
        assert one.correlations[one.lags == -lag] == edges[2, 0, k]
    np.testing.assert_array_equal(other.correlations, one.correlations[::-1])
    assert other.lag == pytest.approx(-one.lag) and other.correlation == one.correlation


def test_pairs_that_contribute_nothing_are_not_listed():
    edges, contributions = np.ones((4, 4, len(LAGS))), np.zeros((4, 4))
    assert related_pairs(edges, contributions, LAGS) == []
    contributions[0, 1], contributions[2, 0], contributions[0, 2] = 0.1, -0.5, -0.25
    found = related_pairs(edges, contributions, LAGS)
    assert [(each.events, each.contribution) for each in found] == [((0, 2), -0.75), ((0, 1), 0.1)]


def test_the_strongest_correlation_of_an_edge():
    edges = np.random.default_rng(0).normal(size=(3, 3, 5))
    found = strongest(edges)
    for i, j in np.ndindex(3, 3):
        assert found[i, j] == max(edges[i, j], key=abs)


def test_the_correlations_name_the_relation_and_not_the_contributions():
    """Dog follows Bell by 1 s, though it is their silence together that decides."""
    edges, terms = np.zeros((2, 2, len(LAGS))), np.zeros((2, 2, len(LAGS)))
    edges[1, 0, 2], edges[0, 1, 0], edges[1, 0, 0] = 0.6, -0.3, -0.3
    terms[1, 0, 2], terms[0, 1, 0], terms[1, 0, 0] = 0.1, 0.4, 0.4
    for sign in (1, -1):
        (found,) = related_pairs(edges, sign * terms.sum(axis=-1), LAGS, sign * terms)
        np.testing.assert_allclose(found.by_lag.sum(), found.contribution)
        assert found.lag == pytest.approx(-1.0) and found.correlation == 0.6
        assert in_time(found, NAMES) == "“Dog” follows “Bell” by about 1.0 s"
