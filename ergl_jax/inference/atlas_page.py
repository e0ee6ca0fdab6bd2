"""Writes a Survey: a self-contained HTML page, and its numbers as JSON."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ergl_jax.errors import InputError
from ergl_jax.files import atomic_write_together, make_directory
from ergl_jax.inference import atlas, html_page, lag_pictures, narrative, pictures
from ergl_jax.inference.relations import MIN_CORRELATION

PAGE = "atlas.html"
MAX_EVENTS = 5  # of each scene
MAX_CONFUSIONS = 20
MAX_SECONDS = 5.0  # of an example's sound
MIN_AGREEMENT = 0.7  # rank correlation

# A clip's name -> its samples (L,) and their rate in Hz; InputError if they can't be read.
Listen = Callable[[str], tuple[np.ndarray, int]]


def write(
    directory: Path,
    survey: atlas.Survey,
    agreement: dict[str, float] | None,
    *,
    runs: Sequence[str],
    listen: Listen | None = None,
) -> Path:
    """Writes atlas.html and atlas.json, both or none, and returns the path of the page.

    `survey` is of the first of `runs`, work directories; `agreement` is `atlas.agreement` of all.
    With `listen` the page plays its examples.
    Raises InputError if `directory` can't be created or written to.
    """
    summary = atlas.summary(survey)
    finite = {k: None if np.isnan(x) else x for k, x in (agreement or {}).items()}
    numbers = {"runs": list(runs), **summary, "agreement": finite or None}
    texts = {
        "atlas.json": json.dumps(numbers, indent=1, allow_nan=False),
        PAGE: render(survey, agreement, runs, listen),
    }
    directory = make_directory(directory, "the directory")
    with atomic_write_together(directory) as tmp_path:
        for name, text in texts.items():
            (tmp_path / name).write_text(text + "\n", encoding="utf-8")
    return directory / PAGE


def render(
    survey: atlas.Survey,
    agreement: dict[str, float] | None,
    runs: Sequence[str],
    listen: Listen | None = None,
) -> str:
    """The page, with its script and its examples' sounds inside."""
    summary = atlas.summary(survey)
    examples = [each for c in summary["confusions"][:MAX_CONFUSIONS] for each in c["examples"]]
    examples += [page["most_certain"] for page in summary["pages"] if page["most_certain"]]
    owned = [page["own_event"] for page in summary["pages"] if page["own_event"]]
    by_scene = {page["scene"]: page for page in summary["pages"]}
    counts = survey.confusion
    panels = []
    for page in summary["pages"]:
        other = by_scene.get(page["neighbour"])  # None if it has no clips
        here = page[survey.measure]
        there = other[survey.measure] if other else [None] * len(here)
        events = sorted(
            zip(survey.events, here, there, strict=True), key=lambda row: row[1], reverse=True
        )
        panels.append((page, other, events[:MAX_EVENTS], _relations(survey, page)))
    return html_page.render(
        PAGE,
        ("matrix.js", "atlas.js"),
        summary=summary,
        right=round(survey.accuracy * len(survey.names)),
        most_frequent=counts.sum(axis=1).max() / len(survey.names),
        hardest=min(summary["pages"], key=lambda page: page["accuracy"]),
        runs=[Path(run).resolve().name for run in runs],  # the reader needn't see whole paths
        shares=counts / np.maximum(counts.sum(axis=1, keepdims=True), 1),
        max_confusions=MAX_CONFUSIONS,
        panels=panels,
        own={key: sum(each[key] for each in owned) for key in ("clips", "strongest")},
        sounds={each["clip"]: _sound(each["clip"], listen) for each in examples if listen},
        seconds=MAX_SECONDS,
        agreement=agreement,
        agrees=agreement and min(agreement["events"], agreement["relations"]) >= MIN_AGREEMENT,
        lags=survey.lags,
        uses_relations=bool(survey.edge_contributions.any()),
        clear=MIN_CORRELATION,
        data=summary,
    )


def _relations(survey: atlas.Survey, page: dict[str, Any]) -> dict[str, Any] | None:
    """Of the dynamic event graph: rows (words here, words there, numbers), and their picture."""
    scene, other = (survey.scenes.index(page[name]) for name in ("scene", "neighbour"))
    compared = atlas.compare(survey, scene, other)
    if not compared:
        return None
    scenes = narrative.plain(page["scene"]), narrative.plain(page["neighbour"])
    drawn = [(each.here, each.there) for each in compared[: narrative.MAX_RELATIONS]]
    figure = lag_pictures.mean_relations(drawn, survey.events, scenes)
    rows = [
        (
            narrative.in_time(each.here, survey.events),
            each.there and narrative.in_time(each.there, survey.events),
            each,
        )
        for each in compared
    ]
    return {"rows": rows, "picture": pictures.inline_svg(figure, f"relations-{scene}")}


def _sound(clip: str, listen: Listen) -> str:
    """The beginning of a clip as a data URI; "" if it can't be read."""
    try:
        waveform, rate = listen(clip)
    except InputError:
        return ""
    return html_page.audio(waveform[: round(MAX_SECONDS * rate)], rate, "MP3")
