"""A Survey as files: a page that needs nothing else, and its numbers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ergl_jax.files import atomic_write_together, make_directory
from ergl_jax.inference import atlas, pages
from ergl_jax.inference.atlas import ScenePage, Survey
from ergl_jax.inference.narrative import plain, share

PAGE = "atlas.html"
LISTED_EVENTS = 5  # of each scene
LISTED_CONFUSIONS = 20
# From which rank correlation on two runs are said to agree, and in which words.
AGREEMENT = ((0.7, "largely agree"), (0.4, "agree in part"), (0.1, "hardly agree"))


def write(
    directory: Path, found: Survey, agreement: dict[str, float] | None, *, runs: Sequence[str]
) -> Path:
    """Writes atlas.html and atlas.json, and returns the path of the page.

    `found` is of the first of `runs`, work directories; `agreement` is `atlas.agreement` of all.
    They are there together, or not at all. InputError where `directory` can't be written to.
    """
    text = {
        "atlas.json": json.dumps(to_dict(found, agreement, runs), indent=1, allow_nan=False),
        PAGE: page(found, agreement, runs),
    }
    directory = make_directory(directory, "the directory")
    with atomic_write_together(directory) as beside:
        for name, content in text.items():
            (beside / name).write_text(content + "\n", encoding="utf-8")
    return directory / PAGE


def to_dict(
    found: Survey, agreement: dict[str, float] | None, runs: Sequence[str]
) -> dict[str, Any]:
    """All numbers of the page, as dicts, lists and strings, for JSON; null where there is none."""
    scene_pages = atlas.scene_pages(found)
    means = {page.scene: page.edge_means for page in scene_pages}
    return {
        "runs": list(runs),
        "dataset": found.dataset,
        "clips": len(found.names),
        "accuracy": _accuracy(found),
        "scenes": list(found.scenes),
        "events": list(found.events),
        "confusion": found.confusion.tolist(),
        "confusions": atlas.confusions(found),
        "pages": [
            {
                "scene": found.scenes[page.scene],
                "clips": page.clips,
                "accuracy": page.accuracy,
                "neighbour": found.scenes[page.neighbour],
                "confusions": page.confusions,
                "event_probabilities": page.event_probabilities.tolist(),
                "edge_means": page.edge_means.tolist(),
                "apart": [
                    {
                        "from": found.events[j],
                        "to": found.events[i],
                        "d": d,
                        "mean_edge": float(page.edge_means[i, j]),
                        "neighbour_mean_edge": float(means[page.neighbour][i, j]),
                    }
                    for i, j, d in page.apart
                ],
            }
            for page in scene_pages
        ],
        "agreement": agreement
        and {name: None if np.isnan(value) else value for name, value in agreement.items()},
    }


def page(found: Survey, agreement: dict[str, float] | None, runs: Sequence[str]) -> str:
    """The page: one HTML file with its script inside, that asks for no other."""
    scene_pages = atlas.scene_pages(found)
    places = {page.scene: place for place, page in enumerate(scene_pages)}
    confusions = atlas.confusions(found)
    counts = found.confusion
    data = {
        "events": [pages.shown(name) for name in found.events],
        "scenes": [
            {
                "name": pages.shown(plain(found.scenes[page.scene])),
                "neighbour": places.get(page.neighbour),
                "means": pages.rounded(page.edge_means),
            }
            for page in scene_pages
        ],
    }
    return pages.render(
        PAGE,
        ("matrix.js", "atlas.js"),
        found=found,
        accuracy=_accuracy(found),
        paragraph=paragraph(found),
        # Whole paths are nobody's business whom the page is shown to.
        runs=[Path(run).resolve().name for run in runs],
        confusion=counts,
        shares=counts / np.maximum(counts.sum(axis=1, keepdims=True), 1),
        confusions=confusions[:LISTED_CONFUSIONS],
        more=len(confusions[LISTED_CONFUSIONS:]),
        panels=[
            _panel(found, page, scene_pages[places[page.neighbour]])
            if page.neighbour in places
            else _panel(found, page, None)
            for page in scene_pages
        ],
        agreement=agreement,
        agreed=agreement and agreed(agreement),
        data=data,
    )


def paragraph(found: Survey) -> str:
    """The main numbers of a Survey in a few sentences."""
    counts = found.confusion
    clips, right = counts.sum(axis=1), counts.diagonal()
    tested = np.flatnonzero(clips)
    accuracy = right[tested] / clips[tested]
    total = clips.sum()
    sentences = [
        f"The model names {right.sum()} of {total} clips right ({share(_accuracy(found))}); "
        f"naming the same scene always would be right for {share(clips.max() / total)} at most."
    ]
    confusions = atlas.confusions(found)
    if not confusions:
        return " ".join([*sentences, "It confuses no two scenes."])
    perfect = int((accuracy == 1).sum())
    if perfect:
        scenes = "scene" if perfect == 1 else "scenes"
        sentences.append(f"All clips of {perfect} {scenes} of {len(tested)} are named right.")
    worst = tested[accuracy.argmin()]
    first = confusions[0]
    sentences += [
        f"The hardest scene is {plain(found.scenes[worst])}, with {right[worst]} of "
        f"{clips[worst]} clips named right.",
        f"The most frequent confusion is {plain(first['scene'])} taken for "
        f"{plain(first['predicted'])}: {_clips(first['clips'])}.",
    ]
    return " ".join(sentences)


def agreed(agreement: dict[str, float]) -> str:
    """What the agreement of runs means, a sentence or two."""
    if not agreement["clips"]:
        return "No two runs give any clip the same scene, so there is nothing to compare."
    events, relations = (
        next((words for least, words in AGREEMENT if agreement[what] >= least), "do not agree")
        for what in ("events", "relations")
    )
    if events == relations:
        sentence = f"On which events, and which relations, matter for a clip the runs {events}."
    else:
        sentence = (
            f"On which events matter for a clip the runs {events}; "
            f"on which relations matter they {relations}."
        )
    if min(agreement["events"], agreement["relations"]) >= AGREEMENT[0][0]:
        return sentence
    return (
        f"{sentence} What an explanation says of them therefore holds for one run: another, "
        "trained on the same data, may decide by others."
    )


def _panel(found: Survey, page: ScenePage, neighbour: ScenePage | None) -> dict[str, Any]:
    """What the page tells of one scene besides its matrix; `neighbour` is None if without clips."""
    order = np.argsort(-page.event_probabilities, kind="stable")[:LISTED_EVENTS]
    return {
        "scene": plain(found.scenes[page.scene]),
        "neighbour": plain(found.scenes[page.neighbour]),
        "compared": neighbour is not None,
        "accuracy": page.accuracy,
        "sentence": _sentence(found, page),
        "events": [
            (
                found.events[i],
                page.event_probabilities[i],
                None if neighbour is None else neighbour.event_probabilities[i],
            )
            for i in order
        ],
        "apart": [
            (
                found.events[j],
                found.events[i],
                page.edge_means[i, j],
                neighbour.edge_means[i, j],
                d,
            )
            for i, j, d in page.apart
        ],
        "nothing": _nothing(page, neighbour),
        "one_sided": _one_sided(found, page),
    }


def _sentence(found: Survey, page: ScenePage) -> str:
    right = round(page.accuracy * page.clips)
    sentence = f"{right} of {_clips(page.clips)} named right ({share(page.accuracy)})."
    neighbour = plain(found.scenes[page.neighbour])
    if page.neighbour == page.scene:  # the only scene that the model knows
        return sentence
    if page.confusions:
        return (
            f"{sentence} Most often confused with {neighbour}: {_clips(page.confusions)}, counted "
            "both ways."
        )
    return (
        f"{sentence} Confused with no scene, in either direction; besides itself, the model finds "
        f"{neighbour} most probable."
    )


def _nothing(page: ScenePage, neighbour: ScenePage | None) -> str:
    """Why no relation sets a scene apart, if none does."""
    if page.apart:
        return ""
    if neighbour is None or min(page.clips, neighbour.clips) < 2:
        return "It takes two clips of either scene to compare them."
    return "No relation between two events differs."


def _one_sided(found: Survey, page: ScenePage) -> str:
    """Where one event takes part in all relations that set a scene apart, a sentence on it."""
    if len(page.apart) < 2:
        return ""
    receivers, senders = ({pair[k] for pair in page.apart} for k in (0, 1))
    if len(receivers) == 1:
        role, one, other = "received", receivers, "sends"
    elif len(senders) == 1:
        role, one, other = "sent", senders, "receives"
    else:
        return ""
    event = found.events[one.pop()]
    return (
        f"All of these are {role} by {event}: it is that event which sets the scenes apart, more "
        f"than which event {other}."
    )


def _accuracy(found: Survey) -> float:
    return float((found.predicted == found.truth).mean())


def _clips(count: int) -> str:
    return f"{count} clip" if count == 1 else f"{count} clips"
