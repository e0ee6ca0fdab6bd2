"""Labels the recordings of a manifest with a teacher's event probabilities (§3.1).

    python data_prep/pseudo_label.py --bundle data/panns/bundle --manifest my.csv \\
        --out my.events.npz

Training reads `<manifest's stem>.events.npz` by default. After an interruption the same command
resumes. Exit status: 0 when every recording was labelled, 1 when some could not be decoded
(`<out's stem>.failures.csv` lists them, and the same command tries only those again), 2 on wrong
input, 130 when interrupted.
"""

if __name__ == "__main__":
    from ergl_jax.errors import leave_at_once
    from ergl_jax.kernels.cpu import use_huge_pages

    leave_at_once()
    use_huge_pages()  # it starts the program again: before the slow imports

import dataclasses
import sys
from pathlib import Path

from arguments import number

from ergl_jax import bundle as bundles
from ergl_jax import locks
from ergl_jax.audio import CHANNELS
from ergl_jax.cache import use_caches
from ergl_jax.errors import Parser, command
from ergl_jax.files import local_path, user_path
from ergl_jax.hub import bundle_path
from ergl_jax.kernels.cpu import use_cores
from ergl_jax.training import pseudo_labels


def _parser() -> Parser:
    parser = Parser(
        description="Labels the recordings of a manifest with a teacher's event probabilities."
    )
    add = parser.add_argument
    add("--bundle", type=bundle_path, required=True, help="the teacher (data_prep/port_panns.py)")
    add("--manifest", type=user_path, required=True, help="CSV with the columns file and scene")
    add("--out", type=local_path, required=True, help="the .npz to write")
    add("--clip_seconds", type=float, help="of a clip; default: the bundle's")
    pads = "how a shorter recording is filled; default: as the bundle"
    add("--pad", choices=["zero", "repeat"], help=pads)
    longs = "label the centre of a longer recording (the default), or all of it by the mean"
    add("--long", default="crop", choices=["crop", "windows"], help=longs)
    channels = "channel of stereo recordings (mix: their mean); default: the front end's"
    add("--channel", choices=list(CHANNELS), help=channels)
    sizes = "clips at a time, over all devices; default 8"
    add("--batch_size", type=number(int, 1, 2**20), default=8, help=sizes)
    add("--strict", action="store_true", help="stop at the first recording that can't be decoded")
    return parser


@command(resumes=True)
def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    args = _parser().parse_args(argv)
    use_cores(args.batch_size)
    use_caches()
    bundle = bundles.load(args.bundle)
    front_end = bundle.front_end.with_channel(args.channel)
    bundle = dataclasses.replace(bundle, front_end=front_end)
    with locks.hold(Path(f"{args.out}.lock"), f"{args.out}", "name another --out"):
        failures = pseudo_labels.label(
            bundle,
            args.manifest,
            args.out,
            clip_seconds=bundle.clip_seconds if args.clip_seconds is None else args.clip_seconds,
            pad=args.pad or bundle.pad,
            long=args.long,
            batch_size=args.batch_size,
            strict=args.strict,
        )
    print(f"{len(bundle.events)} events in {args.out}")
    if not failures:
        return 0
    listed = pseudo_labels.failures_file(args.out)
    print(f"{len(failures)} recordings are left out: {listed}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
