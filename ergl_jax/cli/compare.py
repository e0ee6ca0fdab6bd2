"""Compares finished runs: settings, scores with their uncertainty, learning curves.

    ergl compare runs/a runs/b --out compared

Accuracies have 95 % intervals by resampling the test recordings; each run is compared with the
first by an exact sign test. --out gets comparison.json and curves.png.
"""

import argparse

from ergl_jax.errors import InputError
from ergl_jax.files import check_directory, local_path, make_directory, user_path

HELP = "compare finished runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("runs", nargs="+", type=user_path, metavar="RUN", help="work directory of a finished run")
    add("--out", type=local_path, metavar="DIR", help="directory for numbers and curves")


def run(args: argparse.Namespace) -> int:
    if len(args.runs) < 2:
        raise InputError("name two runs or more")
    if args.out:
        check_directory(args.out, "--out")
    from ergl_jax.recipes import comparison
    from ergl_jax.training import workdirs

    runs = [comparison.read(path) for path in args.runs]
    found = comparison.compare(runs)
    print(comparison.text(found))
    if args.out:
        make_directory(args.out, "--out")
        workdirs.write_json(args.out / "comparison.json", found)
        comparison.write_curves(runs, args.out / "curves.png")
        print(f"Wrote {args.out}/comparison.json and {args.out}/curves.png")
    return 0
