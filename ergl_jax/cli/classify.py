"""Classifies recordings: the scene of each, and the events in it.

    ergl classify --bundle runs/synthetic/bundle clip.wav recordings/ "more/*.flac"

For a recording unlike the training clips it names no scene; the probabilities are then guesses.
Recordings may have any length and sample rate: probabilities are the mean over windows of the
bundle's clip length, which are also listed if there are several. Folders are searched recursively,
without hidden files.

JSON and CSV have a record with an error for each recording that could not be classified.

Exit status: 0, or 2 if a recording could not be classified; the others still are.
"""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from ergl_jax.errors import InputError, report
from ergl_jax.hub import bundle_path

if TYPE_CHECKING:
    from ergl_jax.bundle import Bundle
    from ergl_jax.inference.results import Classification

HELP = "classify the scene of recordings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("recordings", nargs="+", metavar="CLIP", help="a file, a folder, or a quoted pattern")
    add("--bundle", type=bundle_path, required=True, help="bundle, work directory or hf://...")
    add_channel(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line, with timeline")
    form.add_argument("--csv", action="store_true", help="one row a recording")
    add(
        "--abstain-below",
        type=probability,
        default=0.0,
        metavar="P",
        help="name no scene if the most probable one is below P",
    )
    add(
        "--keep",
        type=probability,
        default=0.95,
        metavar="SHARE",
        help="abstain from unknown sounds; SHARE of known ones still get an answer (%(default)s; "
        "1: never abstain)",
    )


def add_channel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--channel",
        choices=("left", "right", "mix"),
        help="channel of stereo recordings (mix: their mean); default: the front end's",
    )


def probability(text: str) -> float:
    """The `type` of a flag: a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return value


def run(args: argparse.Namespace) -> int:
    from ergl_jax.audio.recordings import expand
    from ergl_jax.inference.classify import load

    model = load(args.bundle, keep=args.keep)
    model.check_scenes()
    write = _write_json if args.json else _csv_writer(model.bundle) if args.csv else None
    found: list[bool] = []  # of each recording, whether it was classified

    def failed(file: str, error: InputError) -> None:
        report(error)
        found.append(False)
        if write:
            write({"file": file, "error": str(error)})

    def recordings() -> Iterator[str]:
        for pattern in args.recordings:
            try:
                yield from expand(pattern, partial(failed, pattern))
            except InputError as error:
                failed(pattern, error)

    for recording, result in model.classify_each(recordings(), channel=args.channel):
        if isinstance(result, InputError):
            failed(str(recording), result)
        else:
            found.append(True)
            doubtful = result.probability < args.abstain_below
            if write:
                record = result.to_dict() | {"calibration": model.bundle.calibration}
                write(record | {"scene": None} if doubtful else record)
            else:
                _print(result, doubtful)
        sys.stdout.flush()
    if any(found) and not write:
        print(model.bundle.about_probabilities)
        if not model.bundle.known:
            print(model.bundle.about_known)
    return 0 if all(found) else 2


def _print(result: "Classification", doubtful: bool) -> None:
    head, *rest = str(result).splitlines()
    if doubtful:
        rest.insert(0, "  no answer: no scene reaches --abstain-below")
    print(head, *rest, sep="\n")


def _write_json(record: dict) -> None:
    print(json.dumps(record))


def _csv_writer(bundle: "Bundle") -> Callable[[dict], None]:
    """Writes the header; returns a function that writes a record as a row."""
    scenes = [f"scene:{name}" for name in bundle.scenes]
    events = [f"event:{name}" for name in bundle.events]
    numbers = ["probability", "distance", "max_distance", *scenes, *events]
    names = ["file", "seconds", "scene", *numbers, "notes", "error"]
    writer = csv.DictWriter(sys.stdout, names, extrasaction="ignore")
    writer.writeheader()

    def write(record: dict) -> None:
        row = dict(record)
        if "stop" in row:
            row |= {"seconds": f"{row['stop']:.3f}", "notes": "; ".join(row["notes"])}
        for kind in ("scene", "event"):
            row |= {f"{kind}:{name}": x for name, x in row.get(f"{kind}s", {}).items()}
        formatted = {x: f"{row[x]:.6f}" for x in numbers if row.get(x) is not None}
        writer.writerow(row | formatted)

    return write
