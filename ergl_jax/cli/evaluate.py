"""Scores a model on labelled recordings, of any data set that has its classes.

    ergl evaluate runs/mine other_recordings/
    ergl evaluate runs/mine --manifest other.csv --out scores

Recordings are given as for `ergl train`. The test split is scored by default (with folds, the last
fold), or all recordings if there is none. They are classified as by `ergl classify`: a long one by
the mean over its windows. A warning gives the number of recordings that the run was trained on, or
that are copies of these; a note is printed if that is unknown, as for a bundle without its run.
--out gets results.json, predictions.csv and the confusion matrix.

Exit status: 0, or 2 if a recording could not be read; the scores are then those of the others.
"""

import argparse
from pathlib import Path

from ergl_jax.cli.recordings import BUNDLE
from ergl_jax.cli.train import add_recordings
from ergl_jax.errors import InputError, report, warn
from ergl_jax.files import check_directory, local_path
from ergl_jax.hub import bundle_path

HELP = "score a model on labelled recordings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("bundle", type=bundle_path, metavar="BUNDLE", help=BUNDLE)
    add_recordings(parser)
    splits = ("train", "validation", "test", "all")
    add("--split", choices=splits, default="", help="default: test if there is one, else all")
    add("--out", type=local_path, metavar="DIR", help="directory for scores and predictions")


def run(args: argparse.Namespace) -> int:
    if args.out:
        check_directory(args.out, "--out")
    from ergl_jax.datasets import labelled
    from ergl_jax.inference.classify import load
    from ergl_jax.recipes import evaluation
    from ergl_jax.training import workdirs
    from ergl_jax.training.evaluate import describe

    model = load(args.bundle)
    corpus, lines = labelled.read(args.folder, args.manifest)
    corpus = evaluation.choose(corpus, args.split)
    if args.split != "train":
        workdir = workdirs.of(Path(args.bundle))
        count = evaluation.count_trained_on(workdir, corpus)
        if count is None:
            warn(
                f"the training recordings of {args.bundle} are unknown: if any of them are "
                "evaluated here, the scores are too optimistic",
                kind="note",
            )
        elif count:
            warn(
                f"{count} of {len(corpus.clips)} recordings are in the training split of {workdir}:"
                " scores on them say nothing about new recordings; evaluate on others"
            )
    failures: list[InputError] = []

    def failed(error: InputError) -> None:
        report(error)
        failures.append(error)

    scores = evaluation.evaluate(model, corpus, failed=failed, directory=args.out)
    print("\n".join(lines + describe(scores)))
    if args.out:
        print(f"Wrote {args.out}")
    return 2 if failures else 0
