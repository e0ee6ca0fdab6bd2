"""When events sound: a table of their times, and labels of frames.

    clip,onset,offset,event
    audio/0001.wav,1.25,3.5,Dog

`clip` (or `file`, `filename`) is a recording as in the manifest's column `file`; onset and offset
are seconds from its start; `event` (or `event_label`) is one of the manifest's events. In a clip
without a row no event sounds.

Shapes: L samples of a clip, F frames of its log-mel spectrogram, E events.
"""

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ergl_jax.audio import FrontEnd, segments
from ergl_jax.datasets.manifest import Clip, Corpus, Interval, number
from ergl_jax.datasets.tables import nfc, read_table
from ergl_jax.errors import InputError, warn
from ergl_jax.files import find_path, user_path

TRUTH = "truth"  # in place of a table: the times from which a synthetic corpus is made
TOLERANCE = 0.1  # seconds by which an offset may exceed the recording's length
MAX_SHOWN = 20  # events in an error message
COLUMNS = ("clip", "onset", "offset", "event")
SYNONYMS = {"file": "clip", "filename": "clip", "event_label": "event"}
REMEDY = "data.annotations is a CSV with the columns clip, onset, offset and event (docs/data.md)"


def annotate(corpus: Corpus, path: str | os.PathLike, manifest: str | os.PathLike) -> Corpus:
    """The corpus with the times of a table; no recording is opened.

    Args:
      corpus: of `manifest`.
      path: the table, in any form that `tables.read_table` reads.
      manifest: clips are absolute or relative to its directory.

    Raises InputError, one line that names file, line and field.
    """
    path = find_path(user_path(path, "data.annotations"))
    folder = user_path(manifest).parent
    sounds: dict[str, list[Interval]] = {_key(folder, clip.name): [] for clip in corpus.clips}
    for row in read_table(path, COLUMNS, REMEDY, _own_names):
        clip, onset, offset, event = (row.cells[column] for column in COLUMNS)
        key = _key(folder, clip)
        if key not in sounds:
            reason = f"clip {clip!r} is not in {manifest}: correct it, or remove the row"
            raise InputError(f"{row.where}: {reason}")
        event = nfc(event)
        if event not in corpus.events:
            shown = [*corpus.events[:MAX_SHOWN], *["..."] * (len(corpus.events) > MAX_SHOWN)]
            known = ", ".join(shown) or "none: add event columns or an .npz"
            raise InputError(f"{row.where}: {manifest} has no event {event!r}; it has {known}")
        start, stop = number(onset), number(offset)
        if not 0 <= start < stop < math.inf:
            reason = "give seconds from the recording's start, 0 <= onset < offset"
            raise InputError(f"{row.where}: onset={onset!r}, offset={offset!r}: {reason}")
        sounds[key].append(Interval(corpus.events.index(event), start, stop, row.where))
    _warn_of_contradictions(corpus, path, [sounds[_key(folder, c.name)] for c in corpus.clips])
    clips = [
        dataclasses.replace(clip, sounds=tuple(sounds[_key(folder, clip.name)]))
        for clip in corpus.clips
    ]
    return dataclasses.replace(corpus, clips=clips)


def _warn_of_contradictions(corpus: Corpus, path: Path, sounds: Sequence[list[Interval]]) -> None:
    """Warns of clips where an event has times but probability 0, or probability 1 but no times."""
    probabilities = np.stack([clip.events for clip in corpus.clips])  # (N, E)
    listed = np.zeros(probabilities.shape, bool)
    for row, intervals in enumerate(sounds):
        listed[row, [interval.event for interval in intervals]] = True
    wrong = np.argwhere(probabilities == np.where(listed, 0, 1))
    if len(wrong):
        row, event = wrong[0]
        labels = "times but probability 0" if listed[row, event] else "probability 1 but no times"
        warn(
            f"{path}: event times contradict event probabilities (number of clips: "
            f"{len(np.unique(wrong[:, 0]))}; for example, in {corpus.clips[row].name} "
            f"{corpus.events[event]!r} has {labels}). Training uses the times"
        )


def _own_names(header: list[str]) -> list[str]:
    """Our names for a header in capitals, or with the names of DCASE's corpora."""
    names = [name.lower() if name.lower() in (*COLUMNS, *SYNONYMS) else name for name in header]
    return [ours if (ours := SYNONYMS.get(name)) and ours not in names else name for name in names]


def _key(folder: Path, file: str) -> str:
    """One spelling of a recording's path."""
    slashed = nfc(file).replace("\\", "/")
    return os.path.abspath(os.path.join(folder, slashed))


def activity(
    clip: Clip,
    num_events: int,
    front_end: FrontEnd,
    *,
    start: int,
    recorded: int,
    length: int,
    pad: str,
) -> np.ndarray:
    """The share of each frame in which each event sounds, (F, E) float32.

    A frame's share is that of the `hop` samples around its centre.

    Args:
      clip: with `sounds`.
      num_events: E.
      front_end: of the frames.
      start: of the clip, in samples of the recording, as of `segments.segment`.
      recorded: samples of the whole recording.
      length: L.
      pad: as of `segments.segment`, for a recording shorter than L.

    Raises InputError for a sound that ends more than TOLERANCE after the recording.
    """
    rate = front_end.sample_rate
    sounding: dict[int, np.ndarray] = {}
    for event, onset, offset, where in clip.sounds or ():
        if offset > recorded / rate + TOLERANCE:
            raise InputError(
                f"{where}: offset={offset:g} is after the end of {clip.name}, which has "
                f"{recorded / rate:.3f} s: correct the row, or replace the recording"
            )
        part = sounding.setdefault(event, np.zeros(min(length, recorded - start), bool))
        first, last = (max(0, round(seconds * rate) - start) for seconds in (onset, offset))
        part[first:last] = True
    shares = np.zeros((front_end.num_frames(length / rate), num_events), np.float32)
    for event, part in sounding.items():
        shares[:, event] = _by_frame(segments.fill(part, length, pad), front_end, len(shares))
    return shares


def _by_frame(sounding: np.ndarray, front_end: FrontEnd, frames: int) -> np.ndarray:
    """(L,) bool -> (F,)."""
    centre = front_end.span // 2 if front_end.frames == "inside" else 0  # of the first frame
    edges = front_end.hop * np.arange(frames + 1) + centre - front_end.hop // 2
    edges = np.clip(edges, 0, len(sounding))
    before = np.concatenate([[0], np.cumsum(sounding)])
    return np.diff(before[edges]) / np.maximum(np.diff(edges), 1)
