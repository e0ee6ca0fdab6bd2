"""Clips and corpora, and the manifest that describes a user's own recordings.

A manifest is a CSV file with one row per clip:

    file,scene,split,group,event:Speech,event:Engine
    audio/0001.wav,tram,train,lisbon-1,0.9,0.1

`file` is absolute or relative to the manifest. `split` is train, validation or test; alternatively
`fold` names any fold, and the caller chooses the folds of the validation and test splits. `group`
(optional) names clips recorded together, which are all in one split. `licence` (optional) is saved
in what is trained on them. Event probabilities (optional) are in the `event:` columns or in an .npz
next to the manifest.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath, PureWindowsPath

import numpy as np

from ergl_jax.audio import read_audio
from ergl_jax.datasets.tables import Row, read_table
from ergl_jax.errors import InputError
from ergl_jax.files import find_path, is_remote, reading, user_path
from ergl_jax.labels import AUDIOSET

SPLITS = ("train", "validation", "test")
REMEDY = "name a CSV with the columns file, scene and split (docs/data.md)"
PROBABILITY = "give a number from 0 to 1"  # in error messages


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
      path: the CSV file, UTF-8.
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
    names = tuple(column.removeprefix("event:").strip() for column in columns)
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
        if not (by_fold or split or "split" in header):
            yield f"{path}, line 1: no column 'split': add it, or a column 'fold' and test_folds"
        if both := test & validation:
            yield f"test_folds and validation_folds both contain fold {min(both)!r}"
        folds = {row.cells.get("fold", "") for row in rows}
        if missing := (test | validation) - folds:
            known = ", ".join(sorted(folds))
            yield f"{path}: no row of fold {min(missing)!r}; the folds are {known}"
        if columns and events_file is not None:
            yield f"{path}: has event columns, and {events_file} has events too; keep one of them"
        if "" in names:
            yield f"{path}, line 1: a column 'event:' has no event name"
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
                if not _is_probability(row.cells[column]):
                    yield f"{row.where}: {column} is {row.cells[column]!r}: {PROBABILITY}"

    for problem in problems():
        raise InputError(problem)
    if events_file is not None:
        names, probabilities = _read_events(find_path(user_path(events_file)), rows)
    else:
        values = [[float(row.cells[column]) for column in columns] for row in rows]
        probabilities = np.array(values, np.float32)  # (N, E)
    scenes = sorted({row.cells["scene"] for row in rows})
    licence = licence or "; ".join(sorted({row.cells.get("licence", "") for row in rows} - {""}))
    clips = [
        Clip(
            name=row.cells["file"],
            scene=scenes.index(row.cells["scene"]),
            split=split_of(row),
            group=_group(row),
            events=events,
            load=functools.partial(read_audio, recording),
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
    rows = read_table(path, ("file", "scene"), REMEDY)
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
        text = f"note: {path}: the backslashes of {slashed} file names are read as slashes"
        print(text, file=sys.stderr, flush=True)
    return path, rows, paths


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


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _decoder(path: Path) -> list[int]:
    """What a fingerprint has of formats of which older versions could miss a part."""
    return [2] if path.suffix.lower() in (".mp3", ".ogg", ".oga", ".opus") else []


def _is_probability(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def _read_events(path: Path, rows: list[Row]) -> tuple[tuple[str, ...], np.ndarray]:
    """Event names and the rows' probabilities (N, E) float32 from an .npz."""
    with (
        reading(path, form="an .npz of plain arrays"),
        path.open("rb") as opened,
        np.load(opened, allow_pickle=False) as arrays,
    ):
        found = {name: np.asarray(arrays[name]) for name in arrays.files}
    kind = "tags" if "tags" in found else "probabilities"
    if kind == "tags":
        found.setdefault("events", np.array(AUDIOSET))
    for name in ("clip", "events", kind):
        if name not in found:
            raise InputError(f"{path}: no array {name!r}; the arrays are {', '.join(found)}")
    clips, events = (
        [str(name).strip() for name in found[key].ravel()] for key in ("clip", "events")
    )
    index = {_nfc(clip): i for i, clip in enumerate(clips)}
    for key, names in (("clip", clips), ("events", events)):
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{path}: {key!r} contains {twice!r} twice")
    values, shape = found[kind], (len(clips), len(events))
    if values.shape != shape or values.dtype.kind not in "fiub":
        wanted = f"numbers, ({shape[0]} clips, {shape[1]} events)"
        raise InputError(f"{path}: {kind!r} is {values.dtype} {values.shape}: give {wanted}")
    values = values.astype(np.float32)
    for i, j in np.argwhere(~((values >= 0) & (values <= 1))):
        value = f"{kind!r} of {clips[i]!r}, {events[j]!r} is {values[i, j]}"
        raise InputError(f"{path}: {value}: {PROBABILITY}")
    used: dict[int, str] = {}  # entry -> where; in the order of the rows
    for row in rows:
        # By a recording's path or its name, with or without extension.
        file = PurePath(row.cells["file"])
        windows = PureWindowsPath(file)
        slashed = windows.as_posix()
        ways = [row.cells["file"], str(file), os.path.splitext(file)[0], file.name, file.stem]
        ways += [slashed, os.path.splitext(slashed)[0], windows.name, windows.stem]
        known = [index[name] for name in map(_nfc, ways) if name in index]
        if not known:
            reason = f"{path} has no clip {file.stem!r}: label it, or remove its row"
            raise InputError(f"{row.where}: {reason}")
        if (other := used.setdefault(known[0], row.where)) != row.where:
            clip = clips[known[0]]
            raise InputError(f"{row.where}: clip {clip!r} of {path} also belongs to {other}")
    return tuple(events), values[list(used)]
