"""Isolated recordings of single events, in the layout of ESC-50 or ESC-10 (K. J. Piczak, 2015)."""

import dataclasses
from pathlib import Path

from ergl_jax.datasets.tables import read_table
from ergl_jax.errors import InputError
from ergl_jax.files import find_path


@dataclasses.dataclass(frozen=True)
class Recording:
    """An isolated recording of one event."""

    name: str  # relative to the folder
    path: Path
    label: str
    fold: str
    source: str  # the same for recordings cut from one original
    licence: str
    author: str
    title: str  # of the original


def _own_names(header: list[str]) -> list[str]:
    american = "licence" not in header
    return ["licence" if american and name.lower() == "license" else name for name in header]


def read_meta(folder: Path, *, esc10: bool = False) -> list[Recording]:
    """The recordings in a folder's meta/esc50.csv (ESC-50) or meta.csv (ESC-10, or a user's own).

    `esc10` leaves out the recordings of ESC-50 that are not in ESC-10. Raises InputError for a
    table that can't be read, a field that is empty, or a source in two folds.
    """
    meta, directory, label, source = folder / "meta" / "esc50.csv", "audio", "category", "src_file"
    if not meta.is_file():
        meta, directory, label, source = folder / "meta.csv", "", "label", "source"
    recordings: list[Recording] = []
    folds: dict[str, str] = {}
    remedy = "give a copy of ESC-50, or such a table of the columns filename, label, fold, source"
    for row in read_table(meta, ("filename", label, "fold", source), remedy, _own_names):
        cells = row.cells
        if esc10 and directory and cells.get("esc10") != "True":
            continue
        if (fold := folds.setdefault(cells[source], cells["fold"])) != cells["fold"]:
            raise InputError(
                f"{row.where}: source {cells[source]!r} is in fold {cells['fold']} here and in "
                f"{fold} before; a source belongs to one fold"
            )
        name = (Path(directory) / cells["filename"]).as_posix()
        about = cells[label], cells["fold"], cells[source]
        more = (cells.get(column, "") for column in ("licence", "author", "title"))
        recordings.append(Recording(name, find_path(folder / name), *about, *more))
    return recordings
