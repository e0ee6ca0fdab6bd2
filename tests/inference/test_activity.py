"""Onsets and offsets by a closed form and by sed_eval; windows joined to a recording."""

import warnings

import numpy as np
import pytest
from made_explanations import LONGEST
from matplotlib.colors import to_hex

from ergl_jax.inference import pictures, strips
from ergl_jax.inference.activity import Activity, join
from ergl_jax.labels import AUDIOSET

EVENTS = ("dog", "Male speech, man speaking", "bell")


def random_activity(steps=40, events=EVENTS, seed=0):
    rng = np.random.default_rng(seed)
    edges = np.r_[0.0, rng.uniform(0.1, 0.5, steps)].cumsum().round(3)
    return Activity(events, 0.32, edges, rng.uniform(0, 1, (steps, len(events))))


def test_spans_of_a_known_signal():
    rows = [[0.5, 0.0], [0.6, 0.9], [0.49, 0.9], [np.nan, np.nan], [0.7, 0.2], [0.9, 0.9]]
    one = Activity(("b", "a"), 0.5, 0.5 * np.arange(7), np.array(rows))
    assert one.spans() == [(0.0, 1.0, "b"), (0.5, 1.5, "a"), (2.0, 3.0, "b"), (2.5, 3.0, "a")]
    assert one.spans(0.8) == [(0.5, 1.5, "a"), (2.5, 3.0, "a"), (2.5, 3.0, "b")]
    assert one.spans(1.0) == [] and one.labels(1.0) == ""
    assert one.labels(0.8) == "0.500\t1.500\ta\n2.500\t3.000\ta\n2.500\t3.000\tb\n"


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_spans_cover_just_the_steps_that_reach_the_threshold(threshold):
    one = random_activity()
    spans = one.spans(threshold)
    assert spans == sorted(spans)
    for event, column in zip(one.events, one.probabilities.T, strict=True):
        mine = [(onset, offset) for onset, offset, name in spans if name == event]
        middles = (one.edges[:-1] + one.edges[1:]) / 2
        covered = [any(onset < t < offset for onset, offset in mine) for t in middles]
        assert (covered == (column >= threshold)).all()
        assert all(mine[k][1] < mine[k + 1][0] for k in range(len(mine) - 1))  # the longest


def test_windows_are_joined():
    """Three windows of 2 s, the last overlapping, of a recording of 5.3 s, in steps of 0.6 s."""
    rows = np.arange(9.0).reshape(3, 3, 1)
    windows = [(0.0, 2.0, rows[0]), (2.0, 4.0, rows[1]), (3.3, 5.3, rows[2])]
    one = join(("a",), windows, 0.6, 5.3)
    # A window's last step, 1.2 to 1.8 s, lasts until 2 s; the third begins at 4 s, in its second.
    np.testing.assert_allclose(one.edges, [0, 0.6, 1.2, 2, 2.6, 3.2, 4, 4.5, 5.3])
    np.testing.assert_array_equal(one.probabilities[:, 0], [0, 1, 2, 3, 4, 5, 7, 8])
    short = join(("a",), windows[:1], 0.6, 0.7)
    np.testing.assert_allclose(short.edges, [0, 0.6, 0.7])
    np.testing.assert_array_equal(short.probabilities[:, 0], [0, 1])


def test_a_rounded_start_adds_no_step():
    windows = [(k * 0.1, (k + 1) * 0.1, np.zeros((2, 1))) for k in range(50)]
    one = join(("a",), windows, 0.05, 5.0)
    assert len(one.probabilities) == 100 and np.diff(one.edges).min() > 0.04


def test_labels_are_a_line_each_with_tabs_between():
    one = random_activity(events=("a\tb\nc", "dog"))
    lines = one.labels().splitlines()
    assert len(lines) == len(one.spans())
    for line, (onset, offset, event) in zip(lines, one.spans(), strict=True):
        assert line.split("\t") == [f"{onset:.3f}", f"{offset:.3f}", " ".join(event.split())]


@pytest.mark.parametrize("events", [EVENTS, AUDIOSET])
def test_sed_eval_reads_the_same_spans(tmp_path, events):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sed_eval = pytest.importorskip("sed_eval")
        one = random_activity(events=events)
        for name, activity in (("a", one), ("b", random_activity(events=events, seed=1))):
            (tmp_path / f"{name}.txt").write_text(activity.labels(), encoding="utf-8")
        found, other = (
            sed_eval.io.load_event_list(str(tmp_path / f"{name}.txt"), delimiter="\t")
            for name in "ab"
        )
        metrics = {}
        for reference in (found, other):
            segments = sed_eval.sound_event.SegmentBasedMetrics(list(events), time_resolution=0.1)
            segments.evaluate(reference, found)
            metrics[id(reference)] = segments.results_overall_metrics()["f_measure"]["f_measure"]
    read = [(row["onset"], row["offset"], row["event_label"]) for row in found]
    assert sorted(read) == one.spans()
    assert metrics[id(found)] == 1 > metrics[id(other)]


def test_the_picture_shows_the_events_that_are_present():
    one = random_activity(events=tuple(LONGEST[:30]))
    one.probabilities[:3] = np.nan
    axes, bar = strips.activity(one, 0.95).axes
    highest = np.nanmax(one.probabilities, axis=0)
    order = np.argsort(-highest)[: len(axes.get_yticks())]
    assert len(order) == min(20, (highest >= 0.95).sum())
    assert [text.get_text()[:21] for text in axes.get_yticklabels()] == [
        one.events[i][:21] for i in order
    ]
    mesh, lines = axes.collections
    shown = mesh.get_array()
    assert shown.mask[:, :3].all() and not shown.mask[:, 3:].any()
    np.testing.assert_array_equal(shown[:, 3:], one.probabilities[3:, order].T)
    assert to_hex(lines.get_color()[0]) == pictures.POSITIVE
    names = {event: row for row, event in enumerate(one.events[i] for i in order)}
    spans = [span for span in one.spans(0.95) if span.event in names]
    assert [tuple(path.vertices[:, 0]) for path in lines.get_paths()] == [
        (onset, offset) for onset, offset, _ in spans
    ]
    assert "0.95" in bar.get_xlabel()


def test_the_picture_of_a_quiet_recording_shows_the_most_probable(tmp_path):
    one = random_activity()
    quiet = Activity(one.events, one.step, one.edges, one.probabilities / 10)
    figure = strips.activity(quiet)
    assert len(figure.axes[0].get_yticks()) == 3
    pictures.save(figure, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text(encoding="utf-8").count("<image")
