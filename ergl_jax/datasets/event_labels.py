"""Event probabilities of a manifest's recordings, in an .npz next to it."""

import os
from pathlib import Path, PurePath, PureWindowsPath

import numpy as np

from ergl_jax.datasets.tables import Row, nfc
from ergl_jax.errors import InputError
from ergl_jax.files import reading
from ergl_jax.labels import AUDIOSET

PROBABILITY = "give a number from 0 to 1"  # in error messages


def read_event_labels(path: Path, rows: list[Row]) -> tuple[tuple[str, ...], np.ndarray]:
    """Event names and the rows' probabilities (N, E) float32 from an .npz.

    InputError for arrays that are missing, misshapen or Python objects, and for rows without a
    clip of their own.
    """
    found: dict[str, np.ndarray] = {}
    form = "an .npz of plain arrays"
    remedy = "save names as np.array(names, str), numbers as np.array(numbers, np.float32)"
    with (
        reading(path, form=form),
        path.open("rb") as opened,
        np.load(opened, allow_pickle=False) as arrays,
    ):
        kind = "tags" if "tags" in arrays.files else "probabilities"
        if kind == "tags":
            found["events"] = np.array(AUDIOSET)
        for name in ("clip", "events", kind):
            if name in arrays.files:
                with reading(f"{path}: {name!r}", remedy, form):
                    found[name] = np.asarray(arrays[name])
            elif name not in found:
                there = ", ".join(arrays.files)
                raise InputError(f"{path}: no array {name!r}; the arrays are {there}")
        for name in ("clip", "events"):
            if found[name].dtype.kind == "S":  # bytes, as HDF5 has text
                found[name] = np.char.decode(found[name], "utf-8")
    clips, events = (
        [nfc(str(name).strip()) for name in found[key].ravel()] for key in ("clip", "events")
    )
    index = {clip: i for i, clip in enumerate(clips)}
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
        known = [index[name] for name in map(nfc, ways) if name in index]
        if not known:
            reason = f"{path} has no clip {file.stem!r}: label it, or remove its row"
            raise InputError(f"{row.where}: {reason}")
        if (other := used.setdefault(known[0], row.where)) != row.where:
            clip = clips[known[0]]
            raise InputError(f"{row.where}: clip {clip!r} of {path} also belongs to {other}")
    return tuple(events), values[list(used)]
