"""Tags recordings: which sound events are in each, and when.

    ergl tag --bundle data/Cnn14_16k clip.wav recordings/ "more/*.flac"
    ergl tag --bundle data/Cnn14_DecisionLevelMax clip.wav --timeline labels

A PANN's bundle (data_prep/port_panns.py) has the 527 events of AudioSet; other models have their
own events. Recordings may have any length and sample rate: probabilities are the mean over windows
of the bundle's clip length; several windows are also listed, with the maximum over them. Folders
are searched recursively, without hidden files.

--timeline writes two files for each recording, named after it. The text file has onset, offset and
event of each stretch in which an event's probability reaches the threshold, tab-separated, for
Audacity (a label track) and sed_eval. The picture shows the events over time. The time step is
0.32 s for Cnn14_DecisionLevelMax and ERGL with Cnn14, a window for PANNs that do not locate events.

JSON and CSV have a record with an error for each recording that could not be tagged.

Exit status: 0, or 2 if a recording could not be tagged; the others still are.
"""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ergl_jax.cli import recordings
from ergl_jax.cli.recordings import probability
from ergl_jax.errors import InputError
from ergl_jax.files import (
    atomic_write_together,
    check_directory,
    find_path,
    local_path,
    make_directory,
)

if TYPE_CHECKING:
    from ergl_jax.inference.classify import Model
    from ergl_jax.inference.results import Tags

HELP = "list the sound events of recordings, with onsets and offsets"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    recordings.add_arguments(parser)
    add = parser.add_argument
    top = "list the K most probable events (default: 10 in text, else all)"
    add("--top", type=_count, metavar="K", help=top)
    folder = "write onsets, offsets and a picture of each recording into this folder"
    add("--timeline", type=local_path, metavar="DIR", help=folder)
    least = "--timeline: an event is present at this probability or more (0.5)"
    add("--threshold", type=probability, metavar="P", help=least)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def run(args: argparse.Namespace) -> int:
    if args.threshold is None:
        args.threshold = 0.5
    elif not args.timeline:
        raise InputError("--threshold needs --timeline DIR: add --timeline, or remove --threshold")
    if args.timeline:
        check_directory(args.timeline, "--timeline")  # before slow work

    from ergl_jax.inference.classify import load

    return tag(load(args.bundle), args)


def tag(model: "Model", args: argparse.Namespace) -> int:
    """Tags recordings with a model that is loaded already; returns the exit status."""
    tagger, events = model.tagger, model.events
    named = {"event": ("events", events), "max": ("maxima", events)}
    write = recordings.writer(args, ("file", "seconds"), (), named)
    written: set[Path] = set()

    def show(result: "Tags") -> None:
        if args.timeline:
            _write_timeline(result, args, written)
        if write:
            write(result.to_dict(args.top))
        else:
            print(result.text(args.top) if args.top else result)

    found = recordings.each(args, tagger, show, write)
    if written and not write:
        steps = f"in steps of {tagger.step:g} s"
        print(f"onsets and offsets, {steps}, and pictures: {args.timeline}")
    return 0 if all(found) else 2


def _write_timeline(result: "Tags", args: argparse.Namespace, written: set[Path]) -> None:
    """Writes a recording's labels and picture; adds its path to `written`.

    InputError if another recording has that path, or a file can't be written.
    """
    from ergl_jax.inference import pictures, strips

    path = args.timeline / _below(result.name, args.recordings)
    if path in written:
        raise InputError(
            f"{result.name}: {path}.txt is of another recording with the same name: tag them "
            "in separate commands, each with its own --timeline"
        )
    make_directory(path.parent, "--timeline")
    with atomic_write_together(path.parent) as tmp_path:
        labels = result.activity.labels(args.threshold)
        (tmp_path / f"{path.name}.txt").write_text(labels, encoding="utf-8")
        figure = strips.activity(result.activity, args.threshold)
        pictures.save(figure, tmp_path / f"{path.name}.png")
    written.add(path)


def _below(name: str, patterns: list[str]) -> str:
    """A recording's path below the folder it was found in; of others, the file's name."""
    for pattern in patterns:
        folder = str(find_path(local_path(pattern))) if pattern else ""
        if folder and os.path.isdir(folder) and name.startswith(os.path.join(folder, "")):
            return os.path.relpath(name, folder)
    return os.path.basename(name)
