"""What any corpus yields: clips with their labels; and the manifest that describes a user's own.

A manifest is a CSV file, one row a clip:

    file,scene,split,group,event:Speech,event:Engine
    audio/0001.wav,tram,train,lisbon-1,0.9,0.1

`file` is absolute or relative to the manifest. `split` is train, validation or test; in its
place `fold` may name any fold, and the caller says which folds are held out. `group` (optional)
names clips recorded together, which never lie in two splits. Event probabilities (optional)
stand in the `event:` columns or in an .npz beside the manifest.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

import numpy as np

from ergl_jax.audio import read_audio
from ergl_jax.errors import InputError
from ergl_jax.files import is_remote, user_path
from ergl_jax.labels import AUDIOSET

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Clip:
    """One recording and its labels; the waveform is made or decoded when `load` is called."""

    name: str  # unique in its corpus
    scene: int  # index into Corpus.scenes
    split: str  # one of SPLITS
    group: str  # clips recorded together; a group never lies in two splits
    events: np.ndarray  # (E,) float32 in 0..1
    # (sample_rate, channel) as of `audio.read_audio` -> (L,) float32; InputError if it can't
    load: Callable[[int, str], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A labelled set of clips: what every source yields and what the builder takes."""

    name: str
    scenes: tuple[str, ...]
    events: tuple[str, ...]
    clips: list[Clip]
    licence: str
    fingerprint: str  # hex; a hash of everything that decides the clips' waveforms


@dataclasses.dataclass(frozen=True)
class _Row:
    where: str  # "<manifest>, line <n>", for error messages
    cells: dict[str, str]
    path: Path  # the recording


def read_manifest(
    path: str | os.PathLike,
    *,
    events_file: str | os.PathLike | None = None,
    test_folds: Sequence[str | int] = (),
    validation_folds: Sequence[str | int] = (),
    licence: str = "",
) -> Corpus:
    """Reads a manifest; no recording is opened.

    Args:
      path: the CSV file, UTF-8.
      events_file: an .npz with arrays `clip` (N,) names with or without extension, `events` (E,)
        names, `probabilities` (N, E); or `clip` and `tags` (N, 527), in AudioSet's order. Default
        `<manifest's stem>.events.npz` if that exists.
      test_folds: folds that make the test split, for a manifest with a `fold` column.
      validation_folds: folds that make the validation split; the other folds train.
      licence: of the recordings; travels with whatever is trained on them.

    Returns:
      The clips in the manifest's order, scenes sorted by name, and a fingerprint that changes
      when a recording's size or modification time does.

    Raises:
      InputError: one line that names file, line and field.
    """
    path = user_path(path)
    header, rows = _read_rows(path)
    splits = _splits(path, header, rows, test_folds, validation_folds)
    groups = [row.cells.get("group") or row.cells["file"] for row in rows]
    _check_groups(rows, groups, splits)
    events, probabilities = _read_events(path, header, rows, events_file)
    scenes = sorted({row.cells["scene"] for row in rows})
    clips = [
        Clip(
            name=row.cells["file"],
            scene=scenes.index(row.cells["scene"]),
            split=split,
            group=group,
            events=values,
            load=functools.partial(read_audio, row.path),
        )
        for row, split, group, values in zip(rows, splits, groups, probabilities, strict=True)
    ]
    return Corpus(path.stem, tuple(scenes), events, clips, licence, _fingerprint(rows))


@dataclasses.dataclass(frozen=True)
class Recording:
    """A recording that a manifest names."""

    name: str
    path: Path
    state: list[int] | None  # size and modification time; None for a missing file


def read_recordings(path: str | os.PathLike) -> list[Recording]:
    """The recordings of a manifest, in its order.

    Splits, folds and events are not looked at. Raises InputError as `read_manifest` does.
    """
    _, rows = _read_rows(user_path(path))
    return [Recording(row.cells["file"], row.path, _state(row.path)) for row in rows]


def _read_rows(path: Path) -> tuple[list[str], list[_Row]]:
    """The column names and the rows, stripped of white space; blank lines are passed over."""
    try:
        text = io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")
        reader = csv.reader(text, strict=True)
        lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except OSError as error:
        raise InputError(f"{path}: can't read the manifest: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the manifest isn't UTF-8 text ({error.reason})") from error
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV: {error}") from error
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if not lines:
        raise InputError(f"{path}: the manifest is empty; it needs the columns file, scene, split")
    header = lines.pop(0)[1]
    for name in ("file", "scene"):
        if name not in header:
            raise InputError(f"{path}, line 1: no column {name!r}; found {', '.join(header)}")
    for name in header:
        if header.count(name) > 1:
            raise InputError(f"{path}, line 1: the column {name!r} stands there twice")
    if not lines:
        raise InputError(f"{path}: the manifest has no rows below its header")

    rows, seen = [], {}
    for number, cells in lines:
        where = f"{path}, line {number}"
        if len(cells) != len(header):
            raise InputError(f"{where}: {len(cells)} fields where the header has {len(header)}")
        row = _Row(
            where, dict(zip(header, cells, strict=True)), path.parent / cells[header.index("file")]
        )
        for name in ("file", "scene"):
            if not row.cells[name]:
                raise InputError(f"{where}: the field {name!r} is empty")
            if "\0" in row.cells[name]:
                raise InputError(f"{where}: the field {name!r} holds a zero byte")
        key = os.path.normpath(row.path)
        if key in seen:
            raise InputError(f"{where}: file {row.cells['file']!r} is already on line {seen[key]}")
        seen[key] = number
        rows.append(row)
    return header, rows


def _splits(path, header, rows, test_folds, validation_folds) -> list[str]:
    """The split of each row, from `fold` when folds are held out and from `split` otherwise."""
    test, validation = ({str(fold) for fold in folds} for folds in (test_folds, validation_folds))
    if test or validation:
        if "fold" not in header:
            raise InputError(f"{path}, line 1: folds are held out but there is no column 'fold'")
        if both := test & validation:
            raise InputError(f"test_folds and validation_folds both name fold {min(both)!r}")
        folds = [row.cells["fold"] for row in rows]
        if missing := (test | validation) - set(folds):
            known = ", ".join(sorted(set(folds)))
            raise InputError(f"{path}: no row of fold {min(missing)!r}; the folds are {known}")
        if "" in folds:
            raise InputError(f"{rows[folds.index('')].where}: the field 'fold' is empty")
        return [
            "test" if fold in test else "validation" if fold in validation else "train"
            for fold in folds
        ]
    if "split" not in header:
        advice = "; say which folds are held out with test_folds" if "fold" in header else ""
        raise InputError(f"{path}, line 1: no column 'split'{advice}")
    for row in rows:
        if row.cells["split"] not in SPLITS:
            raise InputError(
                f"{row.where}: split is {row.cells['split']!r}: choose {', '.join(SPLITS)}"
            )
    return [row.cells["split"] for row in rows]


def _check_groups(rows, groups, splits) -> None:
    first = {}
    for row, group, split in zip(rows, groups, splits, strict=True):
        where, other = first.setdefault(group, (row.where, split))
        if other != split:
            raise InputError(
                f"{row.where}: group {group!r} is in {split} here and in {other} at {where}; "
                "a group belongs to one split"
            )


def _read_events(path, header, rows, events_file) -> tuple[tuple[str, ...], np.ndarray]:
    """Event names and the rows' probabilities (N, E) float32, from columns or from an .npz."""
    columns = [name for name in header if name.startswith("event:")]
    beside = path.with_name(f"{path.stem}.events.npz")
    if events_file is None and beside.exists():
        events_file = beside
    if events_file is not None:
        if columns:
            raise InputError(
                f"{path}: has event columns, and {events_file} gives events too; keep one"
            )
        return _read_events_npz(user_path(events_file), rows)
    names = tuple(column.removeprefix("event:").strip() for column in columns)
    if "" in names:
        raise InputError(f"{path}, line 1: a column 'event:' has no event name")
    probabilities = np.zeros((len(rows), len(columns)), np.float32)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            try:
                value = float(row.cells[column])
            except ValueError:
                value = float("nan")
            if not 0 <= value <= 1:
                cell = row.cells[column]
                raise InputError(f"{row.where}: {column} is {cell!r}: give a number from 0 to 1")
            probabilities[i, j] = value
    return names, probabilities


def _read_events_npz(path: Path, rows) -> tuple[tuple[str, ...], np.ndarray]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: can't read the events: {error.strerror}") from error
    try:
        with file, np.load(file, allow_pickle=False) as arrays:
            found = {name: np.asarray(arrays[name]) for name in arrays.files}
    except Exception as error:  # where a damaged file fails is anyone's guess
        raise InputError(f"{path}: not an .npz of plain arrays") from error
    values_name = "tags" if "tags" in found else "probabilities"
    if values_name == "tags":
        found.setdefault("events", np.array(AUDIOSET))
    for name in ("clip", "events", values_name):
        if name not in found:
            raise InputError(f"{path}: no array {name!r}; found {', '.join(found)}")
    clips, names = (
        [str(name).strip() for name in found[key].ravel()] for key in ("clip", "events")
    )
    values = found[values_name]
    if values.shape != (len(clips), len(names)) or values.dtype.kind not in "fiub":
        raise InputError(
            f"{path}: {values_name!r} is {values.dtype} {values.shape}: give numbers, "
            f"({len(clips)} clips, {len(names)} events)"
        )
    for key, entries in (("clip", clips), ("events", names)):
        if len(set(entries)) < len(entries):
            twice = next(entry for entry in entries if entries.count(entry) > 1)
            raise InputError(f"{path}: {key!r} holds {twice!r} twice")
    values = values.astype(np.float32)
    wrong = ~((values >= 0) & (values <= 1))
    if wrong.any():
        i, j = np.argwhere(wrong)[0]
        raise InputError(
            f"{path}: {values_name!r} of {clips[i]!r}, {names[j]!r} is {values[i, j]}: "
            "give numbers from 0 to 1"
        )

    index = {clip: i for i, clip in enumerate(clips)}
    order, taken = [], {}
    for row in rows:
        file = PurePath(row.cells["file"])
        known = (row.cells["file"], str(file), os.path.splitext(file)[0], file.name, file.stem)
        i = next((index[name] for name in known if name in index), None)
        if i is None:
            raise InputError(
                f"{row.where}: {path} has no clip {file.stem!r}: label it, or take out its row"
            )
        if i in taken:
            raise InputError(f"{row.where}: clip {clips[i]!r} of {path} is also that of {taken[i]}")
        taken[i] = row.where
        order.append(i)
    return tuple(names), values[order]


def _fingerprint(rows: list[_Row]) -> str:
    recordings = json.dumps([[row.cells["file"], _state(row.path)] for row in rows])
    return hashlib.sha256(recordings.encode()).hexdigest()


def _state(path: Path) -> list[int] | None:
    """Size and modification time; None for a missing file, which the builder reports."""
    try:
        status = path.stat()
    except OSError:
        return None
    if is_remote(path):  # an epath.Path has its own words
        return [status.length, status.mtime]
    return [status.st_size, status.st_mtime_ns]
