"""An Explanation in a paragraph of plain English."""

from collections.abc import Sequence

import numpy as np
from scipy.special import softmax

from ergl_jax.inference.explain import Explanation

DETECTED = 0.5  # probability from which an event counts as detected
SMALL_CHANGE = 0.1  # nats
MIN_CONTRIBUTION = 0.005  # nats; less is shown as 0.00
MAX_LISTED = 3  # events or relations in a sentence


def paragraph(e: Explanation) -> str:
    """The main numbers of an Explanation in a few sentences."""
    relations = [
        (f"{e.events[j]} → {e.events[i]}", e.edge_contributions[i, j]) for i, j in e.relations()
    ]
    return " ".join(
        [
            _scene(e),
            _detected(e),
            _contributions("events", zip(e.events, e.node_contributions, strict=True)),
            _contributions("relations", relations),
            without_relations(e),
            e.event_curves.sentence,
            e.edge_curves.sentence,
            counterfactual(e),
            *(f"Note: {note}." for note in e.classification.notes),
        ]
    )


def plain(scene: str) -> str:
    """A scene's name for people: "metro_station" -> "metro station"."""
    return scene.replace("_", " ")


def percent(share: float) -> str:
    """0.4213 -> "42.1 %"."""
    return f"{100 * share:.1f} %"


def number(value: float, form: str) -> str:
    """The value in a format such as "+.2f", with a minus sign instead of a hyphen."""
    return format(value, form).replace("-", "−")


def without_relations(e: Explanation) -> str:
    """The effect of removing all relations, in a sentence."""
    scene, other = plain(e.scenes[e.scene]), plain(e.scenes[e.scene_without_edges])
    before, after = (number(x, "z.2f") for x in (e.log_odds, e.log_odds_without_edges))
    change = f"log-odds go from {before} to {after} nats"
    if scene != other:
        return f"Without relations the scene becomes {other}: the {change} for {scene}."
    if abs(e.log_odds - e.log_odds_without_edges) < SMALL_CHANGE:
        return f"Relations hardly matter here: without them the scene stays {scene}; its {change}."
    return f"Without relations the scene stays {scene}; its {change}."


def counterfactual(e: Explanation) -> str:
    """Which events the scene depends on, in a sentence."""
    removal = e.counterfactual
    if removal is None:
        return (
            "No removal of events changed the scene: even an empty graph is classified as "
            f"{plain(e.scenes[e.scene])}."
        )
    removed = _listed([f"“{e.events[i]}”" for i in removal.events], most=6)
    sentence = f"Without {removed} the scene becomes {plain(e.scenes[removal.scene])}"
    if not removal.smallest:
        return f"{sentence}; a smaller set of events may do the same."
    return f"{sentence}." if len(removal.events) == 1 else f"{sentence}; no smaller set does that."


def _listed(names: Sequence[str], most: int = MAX_LISTED) -> str:
    """ "a", "a and b", "a, b and c"; or "a, b, c and 4 more"."""
    names = list(names)
    if len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _scene(e: Explanation) -> str:
    whole, window = e.classification, e.classification.timeline[e.window]
    shares = softmax(e.activations.scene_logits)
    scene, runner_up = plain(e.scenes[e.scene]), plain(e.scenes[e.runner_up])
    prediction = (
        f"{scene} ({percent(e.probability)}), ahead of {runner_up} ({percent(shares[e.runner_up])})"
    )
    unsure = "The model is unsure. " if e.probability < 0.5 else ""
    # A file that is a few milliseconds longer than a clip has two windows, one of them nearly all.
    if window.stop - window.start >= 0.99 * (whole.stop - whole.start):
        return f"{unsure}This recording is classified as {prediction}."
    return (
        f"{unsure}The part from {window.start:.1f} to {window.stop:.1f} s is classified as "
        f"{prediction}. The whole recording is classified as {plain(whole.scene)} "
        f"({percent(whole.probability)})."
    )


def _detected(e: Explanation) -> str:
    p = e.activations.event_probabilities
    names = [f"“{e.events[i]}” ({p[i]:.2f})" for i in np.argsort(-p, kind="stable")]
    count = int((p >= DETECTED).sum())
    if not count:
        return f"No event reaches a probability of {DETECTED}; the most probable is {names[0]}."
    return f"Detected events: {_listed(names[:count])}."


def _contributions(what: str, contributions) -> str:
    """The strongest of (name, nats) pairs."""
    strongest = sorted(contributions, key=lambda pair: -abs(pair[1]))[:MAX_LISTED]
    listed = [
        f"“{name}” ({number(value, '+.2f')})"
        for name, value in strongest
        if abs(value) >= MIN_CONTRIBUTION
    ]
    if not listed:
        return f"No {what} contribute 0.01 nats or more."
    return f"The {what} that contribute most are {_listed(listed)} nats."
