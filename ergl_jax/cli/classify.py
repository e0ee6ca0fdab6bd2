"""Names the scene of recordings, and the events in them.

    ergl classify --bundle runs/synthetic/bundle clip.wav recordings/ "more/*.flac"

A recording of any length and sample rate: its probabilities are the mean over windows of the
bundle's clip length, which a longer one lists too. A folder stands for the audio files in it and in
its folders, hidden ones aside.

Exit status: 0, or 2 where a recording could not be classified; the others still are.
"""

import argparse
import csv
import glob
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ergl_jax.errors import InputError, report
from ergl_jax.files import local_path, user_path

HELP = "name the scene of recordings"
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff", ".opus")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("recordings", nargs="+", metavar="CLIP", help="a file, a folder, or a quoted pattern")
    add("--bundle", type=user_path, required=True, help="directory of a bundle")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a JSON object a line, with the timeline")
    form.add_argument("--csv", action="store_true", help="a row for each recording")
    add(
        "--abstain-below",
        type=probability,
        default=0.0,
        metavar="P",
        help="name no scene where the most probable one is below P",
    )


def probability(text: str) -> float:
    """A number from 0 to 1, as the type of a flag."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return value


def run(args: argparse.Namespace) -> int:
    from ergl_jax.inference.classify import load

    model = load(args.bundle)
    write = _WriteCSV(model.bundle.scenes, model.bundle.events) if args.csv else _write_text
    write = _write_json if args.json else write
    failures = []

    def failed(error: InputError) -> None:
        report(error)
        failures.append(error)

    def recordings() -> Iterator[str]:
        for pattern in args.recordings:
            try:
                yield from expand(pattern)
            except InputError as error:
                failed(error)

    for _, result in model.classify_each(recordings()):
        if isinstance(result, InputError):
            failed(result)
        else:
            write(result, result.probability < args.abstain_below)
    return 2 if failures else 0


def expand(pattern: str) -> list[str]:
    """The recordings that a file, a folder or a pattern stands for, in order.

    What matches nothing stays as it is, so that reading it tells. InputError for a folder without
    audio files.
    """
    path = local_path(pattern, "a recording's name")
    if os.path.isdir(path):  # unlike Path's own, false where it can't be looked at
        if not (found := sorted(_inside(path))):
            raise InputError(f"{path} holds no audio file ({', '.join(SUFFIXES)})")
        return found
    if os.path.exists(path):
        return [str(path)]
    matches = sorted(glob.glob(str(path), recursive=True))
    return [match for match in matches if not os.path.isdir(match)] or [str(path)]


def _inside(folder: Path) -> Iterator[str]:
    """The audio files in a folder, at any depth; links to folders aren't followed."""

    def refuse(error: OSError):
        raise InputError(f"{error.filename} can't be read: {error.strerror}") from error

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith("."):
                yield os.path.join(parent, name)


def _write_text(result, abstains: bool) -> None:
    print(result, flush=True)
    if abstains:
        print("  abstains: no scene is probable enough", flush=True)


def _write_json(result, abstains: bool) -> None:
    values = result.to_dict() | ({"scene": None} if abstains else {})
    print(json.dumps(values), flush=True)


class _WriteCSV:
    """Writes a header, then a row a recording; the scene is empty where the model abstains."""

    def __init__(self, scenes: tuple[str, ...], events: tuple[str, ...]):
        self._scenes, self._events = scenes, events
        self._writer = csv.writer(sys.stdout)
        columns = ["file", "seconds", "scene", "probability"]
        columns += [f"scene:{name}" for name in scenes] + [f"event:{name}" for name in events]
        self._writer.writerow(columns)

    def __call__(self, result, abstains: bool) -> None:
        numbers = [result.scenes[name] for name in self._scenes]
        numbers += [result.events[name] for name in self._events]
        row = [result.name, f"{result.stop:.3f}", "" if abstains else result.scene]
        self._writer.writerow(row + [f"{x:.6f}" for x in (result.probability, *numbers)])
        sys.stdout.flush()
