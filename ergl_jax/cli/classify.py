"""Classifies recordings: the scene of each, and the events in it.

    ergl classify --bundle runs/synthetic/bundle clip.wav recordings/ "more/*.flac"

Recordings may have any length and sample rate: probabilities are the mean over windows of the
bundle's clip length, and for more than one window each is listed too. Folders are searched
recursively for audio files, except hidden ones, and through links. In the output, what a file name
has of bytes that are not UTF-8 is written as \\udc80 to \\udcff.

Exit status: 0, or 2 if a recording could not be classified; the others still are.
"""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator

from ergl_jax.errors import InputError, report
from ergl_jax.files import user_path

HELP = "classify the scene of recordings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("recordings", nargs="+", metavar="CLIP", help="a file, a folder, or a quoted pattern")
    add("--bundle", type=user_path, required=True, help="directory of a bundle")
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


def probability(text: str) -> float:
    """The `type` of a flag: a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return value


def run(args: argparse.Namespace) -> int:
    from ergl_jax.audio.recordings import expand
    from ergl_jax.inference.classify import load

    model = load(args.bundle)
    model.check_scenes()
    write = _write_json if args.json else _csv_writer(model.bundle) if args.csv else _write_text
    failures = []

    def failed(error: InputError) -> None:
        report(error)
        failures.append(error)

    def recordings() -> Iterator[str]:
        for pattern in args.recordings:
            try:
                yield from expand(pattern, failed)
            except InputError as error:
                failed(error)

    for _, result in model.classify_each(recordings()):
        if isinstance(result, InputError):
            failed(result)
        else:
            write(result, result.probability < args.abstain_below)
            sys.stdout.flush()
    return 2 if failures else 0


def _write_text(result, abstains: bool) -> None:
    print(result)
    if abstains:
        print("  abstains: no scene is probable enough")


def _write_json(result, abstains: bool) -> None:
    print(json.dumps(result.to_dict() | ({"scene": None} if abstains else {})))


def _csv_writer(bundle) -> Callable:
    """Writes the header; returns a function that writes a row. Abstaining leaves scene empty."""
    row = csv.writer(sys.stdout).writerow
    scenes = [f"scene:{name}" for name in bundle.scenes]
    row(
        ["file", "seconds", "scene", "probability", *scenes, *(f"event:{x}" for x in bundle.events)]
    )

    def write(result, abstains: bool) -> None:
        numbers = [result.probability, *(result.scenes[name] for name in bundle.scenes)]
        numbers += [result.events[name] for name in bundle.events]
        scene = "" if abstains else result.scene
        row([result.name, f"{result.stop:.3f}", scene, *(f"{x:.6f}" for x in numbers)])

    return write
