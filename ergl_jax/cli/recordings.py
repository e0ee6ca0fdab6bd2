"""What `ergl classify` and `ergl tag` share: flags, and a result or an error for each recording."""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ergl_jax.errors import InputError, report
from ergl_jax.hub import bundle_path
from ergl_jax.pretrained import DEFAULT, VARIABLE

BUNDLE = "bundle, work directory, hf://... or a name that `ergl models` lists"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("recordings", nargs="+", metavar="CLIP", help="a file, a folder, or a quoted pattern")
    add_bundle(parser)
    add_channel(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object per recording")
    form.add_argument("--csv", action="store_true", help="one CSV row per recording")


def add_bundle(parser: argparse.ArgumentParser) -> None:
    named = f"default: ${VARIABLE}, else {DEFAULT}"
    parser.add_argument("--bundle", type=bundle_path, help=f"{BUNDLE}; {named}")


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


def each(
    args: argparse.Namespace,
    predict: Callable[..., Iterator[tuple[Any, Any]]],
    show: Callable[[Any], None],
    write: Callable[[dict], None] | None,
) -> list[bool]:
    """Shows the result of each recording, or reports its error; returns which had no error.

    Args:
      args: of `add_arguments`.
      predict: yields (recording, result or InputError), as `Model.classify_each` does.
      show: prints a result; may raise InputError.
      write: prints a record, for an error; None in text.
    """
    found: list[bool] = []

    def failed(file: str, error: InputError) -> None:
        report(error)
        found.append(False)
        if write:
            write({"file": file, "error": str(error)})

    def recordings() -> Iterator[str]:
        from ergl_jax.audio.recordings import expand

        for pattern in args.recordings:
            try:
                yield from expand(pattern, partial(failed, pattern))
            except InputError as error:
                failed(pattern, error)

    for recording, result in predict(recordings(), channel=args.channel):
        try:
            if isinstance(result, InputError):
                raise result
            show(result)
            found.append(True)
        except InputError as error:
            failed(str(recording), error)
        sys.stdout.flush()
    return found


def writer(
    args: argparse.Namespace,
    before: Sequence[str],
    numbers: Sequence[str],
    named: Mapping[str, tuple[str, Sequence[str]]],
) -> Callable[[dict], None] | None:
    """Prints a record as the flags say: --json, --csv, whose header it prints; None for text.

    Args:
      args: of `add_arguments`.
      before: CSV's columns of text; "seconds" is the record's "stop". After all come notes, error.
      numbers: CSV's columns of numbers.
      named: CSV's columns of values by name: a prefix, to the record's field and all names.
    """
    if args.json:
        return _write_json
    return _csv_writer(before, numbers, named) if args.csv else None


def _write_json(record: dict) -> None:
    print(json.dumps(record))


def _csv_writer(
    before: Sequence[str], numbers: Sequence[str], named: Mapping[str, tuple[str, Sequence[str]]]
) -> Callable[[dict], None]:
    numbers = [*numbers, *(f"{kind}:{x}" for kind, (_, names) in named.items() for x in names)]
    names = [*before, *numbers, "notes", "error"]
    rows = csv.DictWriter(sys.stdout, names, extrasaction="ignore")
    rows.writeheader()

    def write(record: dict) -> None:
        row = dict(record)
        if "stop" in row:
            row |= {"seconds": f"{row['stop']:.3f}", "notes": "; ".join(row["notes"])}
        for kind, (field, _) in named.items():
            row |= {f"{kind}:{name}": x for name, x in row.get(field, {}).items()}
        formatted = {x: f"{row[x]:.6f}" for x in numbers if row.get(x) is not None}
        rows.writerow(row | formatted)

    return write
