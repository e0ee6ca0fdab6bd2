"""Makes the features of the recordings that a manifest describes.

    python data_prep/prepare_dataset.py --manifest my.csv

Training on the same manifest with the same settings opens what this built. Exit status: 0 when
every clip was prepared, 1 when some could not be (failures.csv names them), 2 on wrong input.
"""

import argparse
import sys

from ergl_jax.audio import FRONT_ENDS, get_front_end
from ergl_jax.datasets import builder, manifest, splits
from ergl_jax.errors import InputError


def _folds(text: str) -> list[str]:
    return [fold.strip() for fold in text.split(",") if fold.strip()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Makes the features of the recordings that a manifest describes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--manifest", required=True, help="CSV: file, scene, split or fold, group, event:<name>")
    add("--events_file", help=".npz of event probabilities, if not <manifest>.events.npz")
    add("--test_folds", type=_folds, default=[], help="folds of the test split, as 4 or 4,5")
    add("--validation_folds", type=_folds, default=[], help="folds of the validation split")
    add("--validation_fraction", type=float, default=0.3, help="held out where none is given")
    add("--validation_seed", type=int, default=0, help="settles which groups are held out")
    add("--licence", default="", help="of the recordings; goes into every bundle trained on them")
    add("--data_dir", default="data/prepared", help="where datasets are kept")
    add("--front_end", default="paper", help=" or ".join(FRONT_ENDS))
    add("--clip_seconds", type=float, default=10.0, help="duration of a clip")
    add("--pad", default="zero", choices=["zero", "repeat"], help="what fills a shorter recording")
    add("--long", default="crop", choices=["crop", "windows"], help="what a longer one becomes")
    add("--strict", action="store_true", help="stop at the first clip that can't be decoded")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    args = _parser().parse_args(argv)
    try:
        corpus = manifest.read_manifest(
            args.manifest,
            events_file=args.events_file,
            test_folds=args.test_folds,
            validation_folds=args.validation_folds,
            licence=args.licence,
        )
        dataset = builder.prepare(
            splits.hold_out_groups(corpus, args.validation_fraction, args.validation_seed),
            data_dir=args.data_dir,
            front_end=get_front_end(args.front_end),
            clip_seconds=args.clip_seconds,
            pad=args.pad,
            long=args.long,
            strict=args.strict,
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(dataset.path)
    width = max(len(scene) for scene in ("scene", *dataset.scenes))
    print(f"{'scene':{width}}", *(f"{split:>10}" for split in dataset.sizes))
    for i, scene in enumerate(dataset.scenes):
        counts = [dataset.class_sizes[split][i] for split in dataset.sizes]
        print(f"{scene:{width}}", *(f"{count:>10}" for count in counts))
    print(f"{'all':{width}}", *(f"{size:>10}" for size in dataset.sizes.values()))
    return 1 if dataset.failures else 0


if __name__ == "__main__":
    sys.exit(main())
