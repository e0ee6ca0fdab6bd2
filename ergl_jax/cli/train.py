"""Trains a model on your own recordings, in minutes on a CPU.

    ergl train recordings/ --out runs/mine
    ergl train --manifest my.csv --out runs/mine

The folder has a folder of recordings for each class; folders named train, validation and test above
these give the splits, else they are chosen by recording, or by subfolder of a class. A manifest is
a CSV with the columns file and scene, and may have split or fold, group, and event:NAME columns
(docs/data.md). Settings are chosen by the data, and printed as the command of run.py that trains
the same. The same command continues a stopped run.
"""

import argparse
import hashlib
import os
from pathlib import Path

from ergl_jax.errors import InputError, warn
from ergl_jax.files import local_path
from ergl_jax.hub import bundle_path, is_address
from ergl_jax.kernels.cpu import use_huge_pages as start  # noqa: F401, as `cli` calls it

LISTED = "give the recordings as FOLDER or --manifest instead"
SPLIT = "add a column split to the CSV instead"
# Settings that FOLDER or --manifest determines, and what to do instead.
REFUSED = dict.fromkeys(("data.source", "data.manifest", "data.root"), LISTED)
FOLDS = ("data.test_folds", "data.validation_folds", "data.validation_fraction")
REFUSED |= dict.fromkeys(FOLDS, SPLIT)
REFUSED["data.events_file"] = "rename the file to my.events.npz, next to --manifest my.csv"

HELP = "train on your own recordings, sorted into folders or listed in a CSV"


def add_recordings(parser: argparse.ArgumentParser) -> None:
    """Adds the two ways to name labelled recordings."""
    given = parser.add_mutually_exclusive_group(required=True)
    folder = "has a folder of recordings for each class"
    given.add_argument("folder", nargs="?", type=local_path, metavar="FOLDER", help=folder)
    given.add_argument("--manifest", type=local_path, help="a CSV that lists recordings, instead")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recordings(parser)
    add = parser.add_argument
    add("--out", type=local_path, required=True, help="work directory")
    add("--fresh", action="store_true", help="if it exists, train anew in OUT-2, OUT-3, ...")
    add("--tagger", type=bundle_path, metavar="BUNDLE", help="a PANN that labels the events first")
    add("--init-from", type=bundle_path, metavar="BUNDLE", help="begin with this model's encoder")
    fields = "a setting, such as train.epochs=30 (configs/ergl.py lists them); may be repeated"
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help=fields)


def run(args: argparse.Namespace) -> int:
    from ergl_jax import bundle as bundles
    from ergl_jax.datasets import labelled
    from ergl_jax.kernels.cpu import use_barriers, use_cores
    from ergl_jax.recipes import own_recordings as own
    from ergl_jax.recipes import stages
    from ergl_jax.training import pseudo_labels, workdirs

    out = Path(os.path.abspath(workdirs.first_unused(args.out) if args.fresh else args.out))
    if args.folder and out.is_relative_to(os.path.abspath(args.folder)):
        raise InputError(
            f"--out={args.out} is inside {args.folder}, where each folder is a class: choose "
            "another"
        )
    fields = dict(map(own.parse_field, args.set))
    if given := REFUSED.keys() & fields.keys():
        raise InputError(f"--set {min(given)}: {REFUSED[min(given)]}")
    if fields.get("model.name") == "ergl_dynamic":
        raise InputError(
            "--set model.name=ergl_dynamic: it is trained in two stages and needs event labels: "
            "use run.py with --config=configs/ergl_dynamic.py:folder (docs/training.md)"
        )
    init = bundles.load(args.init_from) if args.init_from else None
    tagger = bundles.load(args.tagger) if args.tagger else None
    corpus, listed = labelled.read(args.folder, args.manifest)
    corpus, divided = own.split(corpus)
    if copies := own.find_copies(corpus):
        warn(
            f"{len(copies)} validation or test clips are copies of training clips, such as "
            f"{copies[0][0]} of {copies[0][1]}: scores on them are too optimistic; remove the "
            "copies"
        )
    if init and init.scenes:  # a PANN has none
        count = own.count_trained_before(args.init_from, corpus)
        if count is None:
            warn(
                f"the training recordings of {args.init_from} are unknown: scores are too "
                "optimistic if some of the validation or test clips are among them",
                kind="note",
            )
        elif count:
            warn(
                f"{count} validation or test clips were training clips of {args.init_from}: scores "
                "on them are too optimistic"
            )
    name = fields.get("model.name")
    events: list[str] = []
    if tagger and corpus.events:
        events = [f"Labels of --tagger replace those of {len(corpus.events)} events in the table."]
        corpus = own.without_events(corpus)
    if not tagger and name in (None, "ergl"):
        corpus, events = own.with_events(corpus, forced=name == "ergl")
    if init:
        named = args.init_from if is_address(args.init_from) else args.init_from.absolute()
        fields = {"model.init_from": str(named)} | fields
    # Named by the tagger, so that another one is another setting.
    labels = out / f"events-{hashlib.sha256(str(args.tagger).encode()).hexdigest()[:8]}.npz"
    if tagger:
        fields = {"data.events_file": str(labels)} | fields
    seconds = own.lengths(corpus)
    config = own.preset(
        corpus,
        seconds,
        out,
        num_events=len((tagger or corpus).events),
        init=init,
        fields=fields,
    )
    manifest = own.manifest_path(corpus, out)
    use_barriers()
    use_cores(config.train.batch_size)
    cut = own.about_length(seconds, config.data.clip_seconds, config.data.long)
    with workdirs.held(out):
        own.check_unchanged(corpus, manifest)  # before settings, which also depend on them
        workdirs.check(out, config.to_dict())
        print("\n".join([*listed, *divided, *events, cut]))
        print(f"Equivalent command in a checkout: {own.run_command(config, out)}", flush=True)
        own.write_manifest(corpus, manifest)
        if tagger and not labels.exists():
            pseudo_labels.label(
                tagger,
                manifest,
                labels,
                clip_seconds=tagger.clip_seconds,
                pad=tagger.pad,
                long="windows",
                batch_size=8,
                strict=True,
            )
        results = stages.train(config, out)
    explains = config.model.name == "ergl"
    print("\n".join(_summary(results, out if args.fresh else args.out, explains)))
    return 0


def _summary(results: dict, out: Path, explains: bool) -> list[str]:
    tested = [
        f"Class-wise mean accuracy on {results['clips']['test']} test clips: "
        f"{100 * results['test']['class_mean_accuracy']:.1f} %."
        if results["test"]
        else "No test split: nothing was tested."
    ]
    return [
        *tested,
        "Next:",
        f"  ergl classify NEW.wav --bundle {out}",
        *[f"  ergl explain NEW.wav --bundle {out} --out explained"] * explains,
        f"  ergl evaluate {out} OTHER_FOLDER",
        f"  ergl compare {out} OTHER_RUN --out compared",
    ]
