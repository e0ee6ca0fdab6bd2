"""What an Explanation says, as a paragraph of plain English."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # what it reads is plain numbers: no need to load JAX for them
    from ergl_jax.inference.explain import Explanation
    from ergl_jax.inference.fidelity import Curves

HEARD = 0.5  # the probability from which an event counts as heard
HARDLY = 0.1  # nats; a change below it hardly matters
NOTHING = 0.005  # nats; below it two decimals show zero
LISTED = 3  # of events or relations in a sentence, at most


def paragraph(explanation: "Explanation") -> str:
    """All that the numbers of an Explanation come to, in a few sentences."""
    sentences = [
        *_scene(explanation),
        _heard(explanation),
        *_nodes(explanation),
        _relations(explanation),
        without_relations(explanation),
        fidelity(explanation.event_curves),
        fidelity(explanation.edge_curves),
        counterfactual(explanation),
        *(f"Note: {note}." for note in explanation.classification.notes),
    ]
    return " ".join(sentences)


def plain(scene: str) -> str:
    """A scene's name as it is read: "metro_station" -> "metro station"."""
    return scene.replace("_", " ")


def percent(probability: float) -> str:
    """0.4213 -> "42.1 %"; what would round to none or all is called less or more than that."""
    if probability < 0.0005:
        return "less than 0.1 %"
    if probability >= 0.9995:
        return "more than 99.9 %"
    return f"{100 * probability:.1f} %"


def share(counted: float) -> str:
    """0.4213 -> "42.1 %"; counted, so that all is 100.0 %, unlike a probability."""
    return f"{100 * counted:.1f} %"


def nats(value: float) -> str:
    """A contribution with its sign: "+0.12 nats"."""
    return f"{signed(value)} nats"


def signed(value: float) -> str:
    """Two decimals with their sign: "+0.12", "−0.12", and "0.00" for what rounds to nothing."""
    if abs(value) < NOTHING:
        return "0.00"
    return f"{value:+.2f}".replace("-", "−")


def fidelity(curves: "Curves") -> str:
    """The sentence of fidelity curves, its minus signs as all others here."""
    return curves.sentence.replace(" -", " −")


def _number(value: float) -> str:
    return signed(value).removeprefix("+")


def _listed(names: Sequence[str], most: int = LISTED) -> str:
    """ "a", "a and b", "a, b and c"; those beyond `most` are counted: "a, b and 4 more"."""
    names = list(names)
    if len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _scene(e: "Explanation") -> list[str]:
    whole = e.classification
    scores = e.opened.scene_logits - e.opened.scene_logits.max()
    shares = np.exp(scores) / np.exp(scores).sum()
    what = "this recording"
    window = whole.timeline[e.window]
    # A clip that is a millisecond too long has two windows, and nobody would call them parts.
    part = window.stop - window.start < 0.99 * (whole.stop - whole.start)
    if part:
        what = f"{window.start:.1f} to {window.stop:.1f} s of {what}"
    verb = "calls" if e.probability >= 0.5 else "is unsure, and would sooner than anything call"
    scene, runner_up = plain(e.scenes[e.scene]), plain(e.scenes[e.runner_up])
    found = [
        f"The model {verb} {what} {scene} ({percent(e.probability)}); "
        f"{runner_up} comes next ({percent(shares[e.runner_up])})."
    ]
    if part:
        likewise = " too" if whole.scene == e.scenes[e.scene] else ""
        found.append(
            f"The whole recording is called {plain(whole.scene)}{likewise} "
            f"({percent(whole.probability)})."
        )
    return found


def _heard(e: "Explanation") -> str:
    probabilities = e.opened.event_probabilities
    order = np.argsort(-probabilities, kind="stable")
    heard = [
        f"“{e.events[i]}” ({probabilities[i]:.2f})" for i in order if probabilities[i] >= HEARD
    ]
    if not heard:
        best = order[0]
        return (
            f"The model hears no event with a probability of {HEARD} or more: the most probable is "
            f"“{e.events[best]}” ({probabilities[best]:.2f})."
        )
    if len(heard) == 1:
        return f"The model hears one event: {heard[0]}."
    return f"The model hears {len(heard)} events: {_listed(heard)}."


def _nodes(e: "Explanation") -> list[str]:
    values, scene = e.node_contributions, plain(e.scenes[e.scene])
    order = np.argsort(-values, kind="stable")

    def said(i: int) -> str:
        return f"“{e.events[i]}” ({nats(values[i])})"

    lowest = order[-1]
    if np.abs(values).max() < NOTHING:
        return [f"No event's node changes the log-odds of {scene}."]
    taker = f"the node of {said(lowest)} takes most from them"
    adding = [i for i in order[:LISTED] if values[i] >= NOTHING]
    if not adding:
        return [f"No event's node adds to the log-odds of {scene}; {taker}."]
    added = _listed([said(i) for i in adding])
    if len(adding) == 1:
        first = f"The node of {added} adds most to the log-odds of {scene}"
    else:
        first = f"The nodes of {added} add most to the log-odds of {scene}"
    found = [first + (f"; {taker}." if values[lowest] <= -NOTHING else ".")]
    unheard = [f"“{e.events[i]}”" for i in adding if e.opened.event_probabilities[i] < HEARD]
    if unheard:
        verb = "is not heard itself" if len(unheard) == 1 else "are not heard themselves"
        found.append(
            f"{_listed(unheard)} {verb}: a node may add to a scene without its event being heard."
        )
    return found


def _relations(e: "Explanation") -> str:
    if len(e.events) == 1:
        return "With a single event there is no relation but its own to itself."
    strongest = [
        f"“{e.events[j]} → {e.events[i]}” ({nats(e.edge_contributions[i, j])})"
        for i, j in e.relations()[:LISTED]
        if abs(e.edge_contributions[i, j]) >= NOTHING
    ]
    if not strongest:
        return "No relation between two events adds or takes as much as 0.01 nats."
    if len(strongest) == 1:
        return f"The strongest relation is {strongest[0]}."
    return f"The strongest relations are {_listed(strongest)}."


def without_relations(e: "Explanation") -> str:
    """What removing all relations does to the scene, a sentence."""
    scene, before, after = plain(e.scenes[e.scene]), e.log_odds, e.log_odds_without_edges
    change = after - before
    if abs(change) < NOTHING:
        told = f"stay at {_number(before)} nats"
    else:
        told = f"{'rise' if change > 0 else 'fall'} from {_number(before)} to {_number(after)} nats"
    if e.scene_without_edges != e.scene:
        return (
            f"Without any relation the scene would be {plain(e.scenes[e.scene_without_edges])}: "
            f"the log-odds of {scene} {told}."
        )
    if abs(change) < HARDLY:
        return (
            f"Taken together, relations hardly matter here: without any the scene stays {scene}, "
            f"and its log-odds {told}."
        )
    return f"Without any relation the scene stays {scene}, but its log-odds {told}."


def counterfactual(e: "Explanation") -> str:
    """Which events the scene hangs on, a sentence."""
    found = e.counterfactual
    if found is None:
        return (
            "No set of events was found whose removal changes the scene: an empty graph is called "
            f"{plain(e.scenes[e.scene])} too."
        )
    removed = _listed([f"“{e.events[i]}”" for i in found.events], most=6)
    sentence = f"Without {removed} the scene would be {plain(e.scenes[found.scene])}"
    if not found.smallest:
        return f"{sentence}; a smaller set of events may do the same."
    return f"{sentence}." if len(found.events) == 1 else f"{sentence}; no smaller set does that."
