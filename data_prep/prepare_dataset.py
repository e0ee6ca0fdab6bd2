"""Makes the features of a manifest's recordings, or downloads TUT 2018 and makes its features.

    python data_prep/prepare_dataset.py --manifest my.csv
    python data_prep/prepare_dataset.py tut2018 --data_dir data/prepared

Training on the same corpus with the same settings opens these features. `tut2018` downloads what is
missing of TUT Urban Acoustic Scenes 2018; after an interruption the same command resumes. Exit
status: 0 when every clip was prepared, 1 when some could not be (failures.csv lists them), 2 on
wrong input, 130 when interrupted.
"""

if __name__ == "__main__":
    from ergl_jax.errors import leave_at_once

    leave_at_once()  # before the slow imports

import argparse
import sys

import arguments

from ergl_jax import locks
from ergl_jax.audio import CHANNELS, FRONT_ENDS, get_front_end
from ergl_jax.cache import use_caches
from ergl_jax.datasets import sources, tut2018
from ergl_jax.errors import InputError, Parser, command
from ergl_jax.files import local_path

# Flags of one source alone.
ONLY = {
    "folder": ("manifest", "annotations", "test_folds", "validation_folds", "licence"),
    "tut2018": ("root", "archives", "keep_archives"),
}


def _parser() -> Parser:
    parser = Parser(
        description="Makes the features of a manifest's recordings, or of TUT 2018.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("source", nargs="?", default="folder", choices=ONLY, help="where the recordings come from")
    add("--manifest", help="folder: CSV: file, scene, split or fold, group, event:<name>")
    add("--events_file", help=".npz of event probabilities, if not my.events.npz next to my.csv")
    times = "folder: CSV of when events sound, for train.loss=frames: clip, onset, offset, event"
    add("--annotations", default="", help=times)
    arguments.add_split_flags(parser, folds="folder: folds")
    add("--manifest_only", action="store_true", help="stop before features: events come first")
    add("--licence", default="", help="folder: of the recordings; stored in every bundle")
    add("--root", help="tut2018: where the recordings are kept, if not <data_dir>/tut2018")
    add("--archives", type=local_path, help="tut2018: directory of archives already downloaded")
    keep = "tut2018: keep what was downloaded"
    add("--keep-archives", "--keep_archives", action="store_true", help=keep)
    add("--data_dir", default="data/prepared", help="where datasets are kept, and TUT 2018")
    add("--front_end", default="paper", help=" or ".join(FRONT_ENDS))
    channels = "channel of stereo recordings (mix: their mean), if not the front end's"
    add("--channel", choices=list(CHANNELS), help=channels)
    add("--clip_seconds", type=float, default=10.0, help="duration of a clip")
    add("--pad", default="zero", choices=["zero", "repeat"], help="what fills a shorter recording")
    add("--long", default="crop", choices=["crop", "windows"], help="what a longer one becomes")
    add("--strict", action="store_true", help="stop at the first clip that can't be decoded")
    return parser


def _get(args: argparse.Namespace) -> None:
    """Checks the flags of the source, and downloads TUT 2018."""
    for source, flags in ONLY.items():
        for flag in flags:
            if source != args.source and getattr(args, flag):
                raise InputError(f"--{flag} is a flag of {source}, not of {args.source}")
    if args.source == "folder" and not args.manifest:
        raise InputError("no recordings: add --manifest=PATH.csv, or name the source tut2018")
    if args.source == "tut2018":
        print(tut2018.LICENCE, file=sys.stderr)
        root = sources.tut2018_root(args)
        with locks.hold(root / "lock.json", f"{root}", "choose another --root"):
            tut2018.prepare(root, archives=args.archives, keep_archives=args.keep_archives)


@command(resumes=True)
def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    args = _parser().parse_args(argv)
    # A mistake is reported before hours of download.
    args.front_end = get_front_end(args.front_end).with_channel(args.channel).setting
    _get(args)
    if args.manifest_only:
        sources.corpus(args)  # checks it
        return 0
    use_caches()
    dataset = sources.open_dataset(args, strict=args.strict, wait=False)
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
