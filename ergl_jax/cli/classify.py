"""Classifies recordings: the scene of each, and the events in it.

    ergl classify clip.wav
    ergl classify --bundle runs/synthetic/bundle clip.wav recordings/ "more/*.flac"

For a recording unlike the training clips it names no scene; the probabilities are then guesses.
Recordings may have any length and sample rate: probabilities are the mean over windows of the
bundle's clip length, which are also listed if there are several. Folders are searched recursively,
without hidden files.

JSON and CSV have a record with an error for each recording that could not be classified.

Exit status: 0, or 2 if a recording could not be classified; the others still are.
"""

import argparse
from typing import TYPE_CHECKING

from ergl_jax.cli import recordings
from ergl_jax.cli.recordings import probability

if TYPE_CHECKING:
    from ergl_jax.inference.results import Classification

HELP = "classify the scene of recordings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    recordings.add_arguments(parser)
    add = parser.add_argument
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
        default=0.9,
        metavar="SHARE",
        help="abstain from unknown sounds; SHARE of known ones still get an answer (%(default)s; "
        "1: never abstain)",
    )


def run(args: argparse.Namespace) -> int:
    from ergl_jax.inference.classify import load

    model = load(args.bundle, keep=args.keep)
    model.check_scenes()
    bundle = model.bundle
    named = {"scene": ("scenes", bundle.scenes), "event": ("events", bundle.events)}
    numbers = ("probability", "distance", "max_distance")
    write = recordings.writer(args, ("file", "seconds", "scene"), numbers, named)

    def show(result: "Classification") -> None:
        doubtful = result.probability < args.abstain_below
        if write:
            record = result.to_dict() | {"calibration": bundle.calibration}
            write(record | {"scene": None} if doubtful else record)
        else:
            _print(result, doubtful)

    found = recordings.each(args, model.classify_each, show, write)
    if any(found) and not write:
        print(bundle.about_probabilities)
        if not bundle.known:
            print(bundle.about_known)
    return 0 if all(found) else 2


def _print(result: "Classification", doubtful: bool) -> None:
    head, *rest = str(result).splitlines()
    if doubtful:
        rest.insert(0, "  no answer: no scene reaches --abstain-below")
    print(head, *rest, sep="\n")
