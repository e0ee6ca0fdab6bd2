"""The paragraph of an explanation, for none, one and many of everything."""

import dataclasses

import pytest
from made_explanations import curves, explanation

from ergl_jax.inference import narrative
from ergl_jax.inference.fidelity import Counterfactual

EVENTS = ("Speech", "Music", "Chicken, rooster", "Rain")


def write(**changes):
    return narrative.paragraph(explanation(4, **{"events": EVENTS} | changes))


def test_the_scene_of_a_recording_and_of_a_window():
    assert "This recording is classified as metro station (78.6 %), ahead of park" in write()
    assert write(scene_logits=[0.1, 0.0, 0.0]).startswith("The model is unsure: this recording")
    whole = {"scenes": {"tram": 0.4, "park": 0.35, "metro_station": 0.25}}
    text = write(windows=3, window=1, whole=whole)
    assert text.startswith("The part from 2.0 to 4.0 s is classified as metro station (78.6 %)")
    assert ", and the whole recording as tram (40.0 %). " in text


def test_a_window_of_nearly_the_whole_recording_is_not_called_a_part():
    one = explanation(windows=2).classification
    second = dataclasses.replace(one.timeline[0], start=0.001, stop=2.001)
    longer = dataclasses.replace(one, timeline=(one.timeline[0], second), stop=2.001)
    assert write(classification=longer).startswith("This recording")


@pytest.mark.parametrize(
    "changes, text",
    [
        (
            {"event_probabilities": [0.1, 0.31, 0.2, 0.0]},
            "most probable are “Music” (0.31), “Chicken, rooster” (0.20) and “Speech” (0.10).",
        ),
        (
            {"event_probabilities": [0.1, 0.3, 0.82, 0]},
            "Events detected: “Chicken, rooster” (0.82).",
        ),
        (
            {"event_probabilities": [0.6, 0.7, 0.1, 0.9]},
            "detected: “Rain” (0.90), “Music” (0.70) and “Sp",
        ),
        ({"counterfactual": None}, "No removal of events changed the scene"),
        ({"counterfactual": Counterfactual((2,), 1, True)}, "Without “Chicken, rooster” the scene"),
        ({"counterfactual": Counterfactual((0, 3), 1, True)}, "park; no smaller set does that."),
        ({"counterfactual": Counterfactual((0, 3), 1, False)}, "smaller set of events may do the"),
        ({"notes": ("silence", "1 s")}, " Note: silence. Note: 1 s."),
    ],
)
def test_sentences(changes, text):
    assert text in write(**changes)


@pytest.mark.parametrize(
    "events, relations, text",
    [
        (0.05, 0.05, "The rankings of events and of relations are better than chance."),
        (0.05, 0.1, "The ranking of events is better than chance; that of relations is no better."),
        (0.1, 0.05, "The ranking of events is no better than chance; that of relations is better."),
        (0.1, 0.1, "The rankings of events and of relations are no better than chance."),
    ],
)
def test_how_far_orders_can_be_trusted(events, relations, text):
    both = {"event_curves": curves("events", events), "edge_curves": curves("edges", relations)}
    assert narrative.sentences(explanation(4, **both))[2].endswith(text)


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (-0.4, "+.2f", "−0.40"),
        (0.4, "+.2f", "+0.40"),
        (-0.001, "+.2f", "0.00"),
        (0, ".3f", "0.000"),
    ],
)
def test_numbers(value, form, text):
    assert narrative.number(value, form) == text


def test_without_relations():
    for changes, text in (
        ({"log_odds": 5.44, "log_odds_without_edges": 5.441}, "them the scene stays metro station"),
        (
            {"log_odds": -0.04, "log_odds_without_edges": -0.24, "scene_without_edges": 2},
            "the scene becomes tram: the log-odds go from −0.04 to −0.24 nats for metro station.",
        ),
    ):
        assert text in narrative.without_relations(explanation(4, **changes))
