"""The paragraph of an explanation: right for none, one and many of everything."""

import dataclasses

import numpy as np
import pytest
from made_explanations import curves, explanation

from ergl_jax.inference import narrative
from ergl_jax.inference.fidelity import Counterfactual

EVENTS = ("Speech", "Music", "Chicken, rooster", "Rain")


def said(n=4, **changes):
    return narrative.paragraph(explanation(n, **{"events": EVENTS[:n]} | changes))


def test_the_scene_and_the_next():
    assert said().startswith(
        "The model calls this recording metro station (78.6 %); park comes next (17.5 %). "
        "The model hears "
    )
    unsure = said(scene_logits=[0.1, 0.0, 0.0])
    assert unsure.startswith(
        "The model is unsure, and would sooner than anything call this recording metro station "
        "(35.6 %); tram comes next (32.2 %)."
    )


def test_a_window_of_a_long_recording():
    text = said(windows=3, window=1)
    assert text.startswith("The model calls 2.0 to 4.0 s of this recording metro station (78.6 %);")
    assert "The whole recording is called metro station too (78.6 %)." in text
    text = said(windows=2, whole={"scenes": {"tram": 0.4, "park": 0.35, "metro_station": 0.25}})
    assert "The whole recording is called tram (40.0 %)." in text


def test_a_window_that_is_all_but_the_whole_is_not_called_a_part():
    one = explanation()
    timeline = [dataclasses.replace(one.classification.timeline[0], start=x) for x in (0, 0.001)]
    longer = dataclasses.replace(one.classification, timeline=tuple(timeline), stop=2.001)
    text = narrative.paragraph(dataclasses.replace(one, classification=longer))
    assert "of this recording" not in text and "whole recording" not in text


@pytest.mark.parametrize(
    "probability, text",
    [
        (0.0, "less than 0.1 %"),
        (0.0004, "less than 0.1 %"),
        (0.4213, "42.1 %"),
        (0.9994, "99.9 %"),
        (0.99999, "more than 99.9 %"),
    ],
)
def test_percent(probability, text):
    assert narrative.percent(probability) == text


@pytest.mark.parametrize(
    "probabilities, text",
    [
        (
            [0.1, 0.31, 0.2, 0.0],
            "The model hears no event with a probability of 0.5 or more: the most probable is "
            "“Music” (0.31).",
        ),
        ([0.1, 0.3, 0.82, 0.0], "The model hears one event: “Chicken, rooster” (0.82)."),
        (
            [0.6, 0.3, 0.82, 0.0],
            "The model hears 2 events: “Chicken, rooster” (0.82) and “Speech” (0.60).",
        ),
        (
            [0.6, 0.7, 0.8, 0.9],
            "The model hears 4 events: “Rain” (0.90), “Chicken, rooster” (0.80), “Music” (0.70) "
            "and 1 more.",
        ),
    ],
)
def test_what_is_heard(probabilities, text):
    assert text in said(event_probabilities=probabilities)


@pytest.mark.parametrize(
    "contributions, text",
    [
        ([0.0, 0.004, -0.001, 0.0], "No event's node changes the log-odds of metro station. The"),
        (
            [-0.1, -0.2, -1.25, 0.0],
            "No event's node adds to the log-odds of metro station; the node of “Chicken, rooster” "
            "(−1.25 nats) takes most from them. The",
        ),
        (
            [0.3, -0.001, 0.0, 0.0],
            "The node of “Speech” (+0.30 nats) adds most to the log-odds of metro station. The",
        ),
        (
            [0.3, -0.2, 0.0, 0.7],
            "The nodes of “Rain” (+0.70 nats) and “Speech” (+0.30 nats) add most to the log-odds "
            "of metro station; the node of “Music” (−0.20 nats) takes most from them. “Rain” is "
            "not heard itself: a node may add to a scene without its event being heard. The",
        ),
        (
            [0.3, 0.2, 0.1, 0.05],
            "The nodes of “Speech” (+0.30 nats), “Music” (+0.20 nats) and “Chicken, rooster” "
            "(+0.10 nats) add most to the log-odds of metro station. “Music” and “Chicken, "
            "rooster” are not heard themselves: a node may",
        ),
    ],
)
def test_what_nodes_add(contributions, text):
    assert text in said(
        node_contributions=np.array(contributions), event_probabilities=[0.9, 0.2, 0.1, 0.4]
    )


def relations(*entries, n=4):
    """Contributions, zero but for (sender, receiver, nats)."""
    found = np.zeros((n, n))
    for sender, receiver, value in entries:
        found[receiver, sender] = value
    return found


@pytest.mark.parametrize(
    "entries, text",
    [
        ([], "No relation between two events adds or takes as much as 0.01 nats."),
        ([(2, 2, 9.0)], "No relation between two events adds or takes as much as 0.01 nats."),
        ([(0, 1, 0.12)], "The strongest relation is “Speech → Music” (+0.12 nats)."),
        (
            [(0, 1, 0.12), (1, 0, -0.3)],
            "The strongest relations are “Music → Speech” (−0.30 nats) and “Speech → Music” "
            "(+0.12 nats).",
        ),
        (
            [(0, 1, 0.1), (1, 0, -0.3), (3, 2, 0.5), (0, 3, 0.01)],
            "The strongest relations are “Rain → Chicken, rooster” (+0.50 nats), “Music → Speech” "
            "(−0.30 nats) and “Speech → Music” (+0.10 nats). ",
        ),
    ],
)
def test_relations_go_from_sender_to_receiver(entries, text):
    assert text in said(edge_contributions=relations(*entries))


def test_a_single_event_relates_to_itself_alone():
    text = said(1, edge_contributions=np.ones((1, 1)))
    assert "With a single event there is no relation but its own to itself." in text


@pytest.mark.parametrize(
    "before, after, other, text",
    [
        (
            5.44,
            5.441,
            0,
            "Taken together, relations hardly matter here: without any the scene stays metro "
            "station, and its log-odds stay at 5.44 nats.",
        ),
        (
            5.44,
            5.36,
            0,
            "Taken together, relations hardly matter here: without any the scene stays metro "
            "station, and its log-odds fall from 5.44 to 5.36 nats.",
        ),
        (
            5.44,
            6.0,
            0,
            "Without any relation the scene stays metro station, but its log-odds rise from 5.44 "
            "to 6.00 nats.",
        ),
        (
            -0.04,
            -0.24,
            2,
            "Without any relation the scene would be tram: the log-odds of metro station fall from "
            "−0.04 to −0.24 nats.",
        ),
    ],
)
def test_what_removing_all_relations_does(before, after, other, text):
    said_of_it = said(log_odds=before, log_odds_without_edges=after, scene_without_edges=other)
    assert text in said_of_it
    assert ("hardly" in said_of_it) == ("hardly" in text)


def test_fidelity_is_told_of_events_and_of_edges():
    text = said(event_curves=curves("events", 0.5), edge_curves=curves("edges"))
    assert "The order of events is no better than chance: deleting events" in text
    assert "The order of edges is better than chance: deleting edges" in text
    below = curves("events")
    below = dataclasses.replace(below, delete={k: x - 5 for k, x in below.delete.items()})
    assert "leaves −3.97 nats on average, in a random order −3.50." in narrative.fidelity(below)


@pytest.mark.parametrize(
    "found, text",
    [
        (
            None,
            "No set of events was found whose removal changes the scene: an empty graph is called "
            "metro station too.",
        ),
        (Counterfactual((2,), 1, True), "Without “Chicken, rooster” the scene would be park."),
        (
            Counterfactual((0, 3), 1, True),
            "Without “Speech” and “Rain” the scene would be park; no smaller set does that.",
        ),
        (
            Counterfactual((0, 1, 3), 2, False),
            "Without “Speech”, “Music” and “Rain” the scene would be tram; a smaller set of events "
            "may do the same.",
        ),
    ],
)
def test_the_counterfactual(found, text):
    assert said(counterfactual=found).endswith(text)


def test_notes_come_last():
    text = said(notes=("silence: no sample is above -100 dB of full scale", "1 s are filled"))
    assert text.endswith(
        " Note: silence: no sample is above -100 dB of full scale. Note: 1 s are filled."
    )
