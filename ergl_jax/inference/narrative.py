"""An Explanation in a paragraph of plain English."""

from collections.abc import Sequence

import numpy as np
from scipy.special import softmax

from ergl_jax.inference.activity import DETECTED
from ergl_jax.inference.explanation import Explanation
from ergl_jax.inference.relations import Relation

SMALL_CHANGE = 0.1  # nats
MAX_LISTED = 5  # events in a sentence
MAX_RELATIONS = 3  # in a sentence, and drawn
MIN_RANKED = 4  # events; fewer have fewer than 20 orders, so that none can reach p = 0.05

EXACT = (
    "This model classifies only by when each event sounds: each event and each pair of events "
    "adds its own term to a scene's logit, and these contributions add up exactly."
)


def paragraph(e: Explanation) -> str:
    """An Explanation in a few sentences, and the notes on the recording."""
    notes = [f"Note: {note}." for note in e.classification.notes]
    return " ".join([*sentences(e), *([relations(e)] if e.lags else []), *notes])


def sentences(e: Explanation) -> tuple[str, str, str, str]:
    """The scene and its runner-up, the events detected, how far to trust their ranking, what the
    scene depends on."""
    return _scene(e), _detected(e), EXACT if e.is_exact else _trust(e), counterfactual(e)


def unknown(e: Explanation) -> str:
    """That the sound is unlike the training clips, in a sentence; "" unless it is."""
    guess = e.classification.abstention
    return guess and f"{guess} is explained."


def plain(scene: str) -> str:
    """A scene's name for people: "metro_station" -> "metro station"."""
    return scene.replace("_", " ")


def percent(share: float) -> str:
    """0.4213 -> "42.1 %"."""
    return f"{100 * share:.1f} %"


def number(value: float, form: str) -> str:
    """The value in a format such as "+.2f", with a minus sign, not a hyphen; 0.00 has no sign."""
    text = format(value, form)
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def without_relations(e: Explanation) -> str:
    """The effect of removing all relations, in a sentence."""
    scene, other = plain(e.scenes[e.scene]), plain(e.scenes[e.scene_without_edges])
    before, after = (number(x, ".2f") for x in (e.log_odds, e.log_odds_without_edges))
    change = f"log-odds go from {before} to {after} nats"
    if scene != other:
        return f"Without relations the scene becomes {other}: the {change} for {scene}."
    if abs(e.log_odds - e.log_odds_without_edges) < SMALL_CHANGE:
        return f"Relations hardly matter here: without them the scene stays {scene}; its {change}."
    return f"Without relations the scene stays {scene}; its {change}."


def relations(e: Explanation) -> str:
    """With lags: the pairs of events that contribute most, in a sentence."""
    found = [
        f"{in_time(each, e.events)} (correlation {number(each.correlation, '+.2f')}, contribution "
        f"{number(each.contribution, '+.2f')} nats)"
        for each in e.pairs()[:MAX_RELATIONS]
    ]
    if not found:
        return "No relation of events counts here."
    pairs = "pairs that count" if found[1:] else "pair that counts"
    return f"The {pairs} most: {'; '.join(found)}."


def in_time(relation: Relation, events: Sequence[str]) -> str:
    """When two events sound relative to each other, at the lag that describes the relation."""
    i, j = (f"“{events[event]}”" for event in relation.events)
    lag, positive = relation.lag, relation.correlation > 0
    if not relation.is_clear:
        return f"{i} and {j} have no clear relation in time"
    if relation.is_simultaneous:
        return f"{i} and {j} {'sound at the same time' if positive else 'take turns'}"
    later, earlier = (i, j) if lag > 0 else (j, i)
    seconds = f"{abs(lag):.1f} s"
    if positive:
        return f"{later} follows {earlier} by about {seconds}"
    return f"{later} rarely sounds about {seconds} after {earlier}"


def counterfactual(e: Explanation) -> str:
    """Which events the scene depends on, in a sentence."""
    removal = e.counterfactual
    if removal is None:
        return (
            "No removal of events changed the scene: even an empty graph is classified as "
            f"{plain(e.scenes[e.scene])}."
        )
    removed = _listed([f"“{e.events[i]}”" for i in removal.events])
    sentence = f"Without {removed} the scene becomes {plain(e.scenes[removal.scene])}"
    if not removal.smallest:
        return f"{sentence}; a smaller set of events may do the same."
    return f"{sentence}." if len(removal.events) == 1 else f"{sentence}; no smaller set does that."


def _listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"; or "a, b, c, d, e and 4 more"."""
    names = list(names)
    if len(names) > MAX_LISTED:
        names = [*names[:MAX_LISTED], f"{len(names) - MAX_LISTED} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _scene(e: Explanation) -> str:
    whole, window = e.classification, e.classification.timeline[e.window]
    shares = softmax(e.activations.scene_logits)
    scene, runner_up = plain(e.scenes[e.scene]), plain(e.scenes[e.runner_up])
    prediction = (
        f"{scene} ({percent(e.probability)}), ahead of {runner_up} ({percent(shares[e.runner_up])})"
    )
    # A file that is a few milliseconds longer than a clip has two windows, one of them nearly all.
    if window.stop - window.start >= 0.99 * (whole.stop - whole.start):
        sentence = f"this recording is classified as {prediction}."
    else:
        sentence = (
            f"the part from {window.start:.1f} to {window.stop:.1f} s is classified as "
            f"{prediction}, and the whole recording as {plain(whole.scene)} "
            f"({percent(whole.probability)})."
        )
    unsure = e.probability < 0.5
    return f"The model is unsure: {sentence}" if unsure else f"T{sentence[1:]}"


def _detected(e: Explanation) -> str:
    if e.lags:
        return _heard(e.activations.nodes, e.events)
    p = e.activations.event_probabilities
    names = [f"“{e.events[i]}” ({p[i]:.2f})" for i in np.argsort(-p, kind="stable")]
    if count := int((p >= DETECTED).sum()):
        return f"Events detected: {_listed(names[:count])}."
    most = "the most probable are" if len(names) > 1 else "the most probable is"
    return f"No event reaches a probability of {DETECTED}; {most} {_listed(names[:3])}."


def _heard(nodes: np.ndarray, events: Sequence[str]) -> str:
    """The events that sound, by the nodes (n, 2) of the dynamic event graph."""
    share, presence = nodes.T
    order = np.argsort(-share, kind="stable")
    heard = [f"“{events[i]}” ({100 * share[i]:.0f} %)" for i in order if presence[i] >= DETECTED]
    shares = "Events heard, by share of the time"
    return f"{shares}: {_listed(heard)}." if heard else "No event is heard."


def _trust(e: Explanation) -> str:
    if len(e.events) < MIN_RANKED:
        return f"Too few events ({len(e.events)}) to test their ranking against chance."
    events, relations = (c.is_better_than_chance for c in (e.event_curves, e.edge_curves))
    verdict, other = ("better" if ranked else "no better" for ranked in (events, relations))
    if events == relations:
        return f"The rankings of events and of relations are {verdict} than chance."
    return f"The ranking of events is {verdict} than chance; that of relations is {other}."
