"""Clips and corpora, and the manifest that describes a user's own recordings.

A manifest is a CSV file with one row per clip:

    file,scene,split,group,event:Speech,event:Engine
    audio/0001.wav,tram,train,lisbon-1,0.9,0.1

`file` is absolute or relative to the manifest. `split` is train, validation or test; alternatively
`fold` names any fold, and the caller chooses the folds of the validation and test splits. `group`
(optional) names clips recorded together, which are all in one split. `licence` (optional) is saved
in what is trained on them. Event probabilities (optional) are in the `event:` columns or in an .npz
next to the manifest. `by:` columns (optional), such as by:device, name groups of clips whose
accuracy is reported. The columns' names may be in capitals, or those of DCASE's meta.csv; tables.py
describes the forms of the file.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np

from ergl_jax.audio import read_audio
from ergl_jax.datasets.event_labels import PROBABILITY, read_event_labels
from ergl_jax.datasets.tables import Row, nfc, read_table
from ergl_jax.errors import InputError, warn
from ergl_jax.files import find_path, is_remote, user_path

SPLITS = ("train", "validation", "test")
REMEDY = (
    "name a CSV with the columns file, scene and split (docs/data.md); data_prep/esc10_manifest.py "
    "and mix_soundscapes.py write one"
)
COLUMNS = ("file", "scene", "split", "fold", "group", "licence")
DCASE = {"filename": "file", "scene_label": "scene", "identifier": "group"}  # of its meta.csv


class Interval(NamedTuple):
    """A time in which an event sounds, in seconds from the recording's start."""

    event: int  # index into Corpus.events
    onset: float
    offset: float
    where: str = ""  # "<file>, line <n>", for error messages


@dataclasses.dataclass(frozen=True)
class Clip:
    """One recording and its labels."""

    name: str  # unique in its corpus
    scene: int  # index into Corpus.scenes
    split: str  # one of SPLITS
    group: str  # clips recorded together; a group is in one split
    events: np.ndarray  # (E,) float32 in 0..1
    # As `audio.read_audio`: (sample_rate, channel, notes) -> waveform (L,) float32, or InputError
    load: Callable[[int, str, list[str]], np.ndarray]
    by: Mapping[str, str] = dataclasses.field(default_factory=dict)  # its `by:` columns
    sounds: tuple[Interval, ...] | None = None  # when its events sound; None: not known


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A labelled set of clips: the output of every source and the input of the builder."""

    name: str
    scenes: tuple[str, ...]
    events: tuple[str, ...]
    clips: list[Clip]
    licence: str
    fingerprint: str  # hex; a hash of everything that determines the clips' waveforms


def read_manifest(
    path: str | os.PathLike,
    *,
    events_file: str | os.PathLike | None = None,
    test_folds: Iterable[str | int] = (),
    validation_folds: Iterable[str | int] = (),
    licence: str = "",
    split: str = "",
) -> Corpus:
    """Reads a manifest; no recording is opened.

    Args:
      path: the table, in any form that `tables.read_table` reads.
      events_file: an .npz with arrays `clip` (N,) names with or without extension, `events` (E,)
        names, `probabilities` (N, E); or `clip` and `tags` (N, 527), in AudioSet's order. Default
        `<manifest's stem>.events.npz` if that exists.
      test_folds: folds of the test split, for a manifest with a `fold` column.
      validation_folds: folds of the validation split; the other folds are for training.
      licence: of the recordings; stored in everything trained on them. Default those of the
        column `licence`.
      split: of all clips, for a manifest without the columns `split` and `fold`.

    Returns:
      The clips in the manifest's order, scenes sorted by name, and a fingerprint that changes
      when a recording's size or modification time does.

    Raises:
      InputError: one line that names file, line and field.
    """
    path, rows, paths = _read_rows(path)
    header = rows[0].cells
    columns = [column for column in header if column.startswith("event:")]
    names = tuple(nfc(column.removeprefix("event:").strip()) for column in columns)
    by_columns = [column for column in header if column.startswith("by:")]
    by_names = [column.removeprefix("by:").strip() for column in by_columns]
    by = dict(zip(by_names, by_columns, strict=True))
    if events_file is None and (default := path.with_name(f"{path.stem}.events.npz")).exists():
        events_file = default
    test, validation = ({str(fold) for fold in folds} for folds in (test_folds, validation_folds))
    by_fold = bool(test or validation)

    def split_of(row: Row) -> str:
        if not by_fold:
            return row.cells.get("split", split)
        fold = row.cells["fold"]
        return "test" if fold in test else "validation" if fold in validation else "train"

    def problems() -> Iterator[str]:
        if by_fold and "fold" not in header:
            yield f"{path}, line 1: no column 'fold', which test_folds and validation_folds need"
        folds = {row.cells.get("fold", "") for row in rows}
        known = ", ".join(sorted(folds))
        if not (by_fold or split or "split" in header) and "fold" in header:
            remedy = f"choose some of {known} with data.test_folds or --test_folds"
            yield f"{path}, line 1: has folds and no column 'split': {remedy}"
        if not (by_fold or split or "split" in header):
            yield f"{path}, line 1: no column 'split': add it, or a column 'fold' and test_folds"
        if both := test & validation:
            yield f"test_folds and validation_folds both contain fold {min(both)!r}"
        if missing := (test | validation) - folds:
            yield f"{path}: no row of fold {min(missing)!r}; the folds are {known}"
        if columns and events_file is not None:
            yield f"{path}: has event columns, and {events_file} has events too; keep one of them"
        if "" in names:
            yield f"{path}, line 1: a column 'event:' has no event name"
        if twice := [name for name in by_names if name == "scene" or by_names.count(name) > 1]:
            yield f"{path}, line 1: 'by:{twice[0]}' is taken: choose another name for that column"
        if "" in by:
            yield f"{path}, line 1: a column 'by:' has no name"
        if twice := [name for name in names if names.count(name) > 1]:
            yield f"{path}, line 1: the event {twice[0]!r} has several columns; keep one of them"
        splits: dict[str, tuple[str, str]] = {}  # group -> split, where
        for row in rows:
            if by_fold and not row.cells["fold"]:
                yield f"{row.where}: the field 'fold' is empty"
            its_split, group = split_of(row), _group(row)
            if its_split not in SPLITS:
                yield f"{row.where}: split is {its_split!r}: choose {', '.join(SPLITS)}"
            other, where = splits.setdefault(group, (its_split, row.where))
            if other != its_split:
                reason = f"group {group!r} is in {its_split} here and in {other} at {where}"
                yield f"{row.where}: {reason}; a group belongs to one split"
            for column in columns:
                if not 0 <= number(row.cells[column]) <= 1:
                    yield f"{row.where}: {column} is {row.cells[column]!r}: {PROBABILITY}"

    for problem in problems():
        raise InputError(problem)
    if events_file is not None:
        names, probabilities = read_event_labels(find_path(user_path(events_file)), rows)
    else:
        values = [[number(row.cells[column]) for column in columns] for row in rows]
        probabilities = np.array(values, np.float32)  # (N, E)
        if any("," in row.cells[column] for row in rows for column in columns):
            warn(f"{path}: event columns are read with decimal commas, 0,5 as 0.5")
    scenes = sorted({nfc(row.cells["scene"]) for row in rows})
    _warn_of_unused(path, rows)
    _warn_of_look_alikes(path, "scenes", scenes)
    _warn_of_look_alikes(path, "events", names)
    licence = licence or "; ".join(sorted({row.cells.get("licence", "") for row in rows} - {""}))
    clips = [
        Clip(
            name=row.cells["file"],
            scene=scenes.index(nfc(row.cells["scene"])),
            split=split_of(row),
            group=_group(row),
            events=events,
            load=functools.partial(read_audio, recording),
            by={name: row.cells[column] for name, column in by.items()},
        )
        for row, recording, events in zip(rows, paths, probabilities, strict=True)
    ]
    pairs = zip(clips, paths, strict=True)
    states = json.dumps([[clip.name, _state(p), *_decoder(p)] for clip, p in pairs])
    fingerprint = hashlib.sha256(states.encode()).hexdigest()
    return Corpus(path.stem, tuple(scenes), names, clips, licence, fingerprint)


@dataclasses.dataclass(frozen=True)
class Recording:
    """A recording listed in a manifest."""

    name: str
    path: Path
    state: list[int] | None  # size and modification time; None for a missing file


def read_recordings(path: str | os.PathLike) -> list[Recording]:
    """The recordings of a manifest, in its order; only the columns file and scene are checked."""
    _, rows, paths = _read_rows(path)
    return [
        Recording(row.cells["file"], path, _state(path))
        for row, path in zip(rows, paths, strict=True)
    ]


def _read_rows(path: str | os.PathLike) -> tuple[Path, list[Row], list[Path]]:
    """The manifest's path, its rows and their recordings."""
    path = find_path(user_path(path, "the manifest"))
    rows = read_rows(path)
    seen: dict[str, str] = {}
    paths, slashed = [], 0
    for row in rows:
        file = row.cells["file"]
        paths.append(find_path(path.parent / file))
        slashed += "\\" in file and paths[-1].name != PurePath(file).name
        first = seen.setdefault(os.path.normpath(paths[-1]), row.where)
        if first != row.where:
            raise InputError(f"{row.where}: file {file!r} is already on {first}; remove one row")
    if slashed:
        warn(f"{path}: the backslashes of {slashed} file names are read as slashes")
    return path, rows, paths


def read_rows(path: Path) -> list[Row]:
    """A manifest's rows; only the columns file and scene are checked."""
    return read_table(path, ("file", "scene"), REMEDY, _own_names)


def _own_names(header: list[str]) -> list[str]:
    """A manifest's columns for a header in capitals, with "license", or of DCASE's meta.csv."""
    names = {name: name for name in COLUMNS} | {"license": "licence"}
    names |= DCASE if "scene_label" in header else {}
    return [
        ours
        if (ours := names.get(name.lower())) and ours not in header
        else re.sub("(?i)^(event|by):", lambda match: match[0].lower(), name)
        for name in header
    ]


def _warn_of_unused(path: Path, rows: list[Row]) -> None:
    """Warns of columns that are not used, but have almost a used one's name, or its values."""
    missing = [column for column in COLUMNS if column not in rows[0].cells]
    for name in rows[0].cells:
        if name in COLUMNS or name.startswith(("event:", "by:")) or name.lower() == "folder":
            continue
        near = difflib.get_close_matches(name.lower(), missing, n=1, cutoff=0.78)
        kind, colon, rest = name.partition(":")
        if colon and difflib.get_close_matches(kind.strip().lower(), ["event"], cutoff=0.78):
            near = [f"event:{rest.strip()}"]
        if "split" in missing and {row.cells[name] for row in rows} <= {*SPLITS}:
            near = ["split"]
        if near:
            warn(f"{path}: the column {name!r} is not used: rename it if {near[0]!r} is meant")


def _warn_of_look_alikes(path: Path, kind: str, names: Iterable[str]) -> None:
    """Warns of names that differ only in case, spaces, - and _, or in how Unicode spells them."""
    seen: dict[str, str] = {}
    for name in names:
        key = re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold())
        if (other := seen.setdefault(key, name)) != name:
            warn(
                f"{path}: the {kind} {other!r} and {name!r} are treated as different; spell them "
                "alike if they are the same"
            )


def _group(row: Row) -> str:
    return row.cells.get("group") or row.cells["file"]


def _state(path: Path) -> list[int] | None:
    """Size and modification time; None for a missing file, which the builder reports."""
    try:
        status = path.stat()
    except OSError:
        return None
    if is_remote(path):  # an epath.Path, with other attributes
        return [status.length, status.mtime]  # type: ignore[attr-defined]
    return [status.st_size, status.st_mtime_ns]


def _decoder(path: Path) -> list[int]:
    """What a fingerprint has of formats of which older versions could miss a part."""
    return [2] if path.suffix.lower() in (".mp3", ".ogg", ".oga", ".opus") else []


def number(text: str) -> float:
    """A number with a decimal point or comma; NaN for other text."""
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return math.nan
