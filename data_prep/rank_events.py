"""Ranks a corpus's events by their probability accumulated over its training split (§3.1).

    python data_prep/rank_events.py --labels labels.npz --manifest my.csv --top 25

Prints the table and writes the names, one a line, for --config.data.events. The training split is
the one that training uses, without the clips held out for validation: with the same flags and
`data.events` empty, training takes the same events, unless recordings become several clips
(`data.long="windows"`) or can't be read.
"""

if __name__ == "__main__":
    from ergl_jax.errors import leave_at_once

    leave_at_once()  # before the slow imports

import argparse
import sys

import arguments
import numpy as np

from ergl_jax.datasets import sources
from ergl_jax.datasets.events import rank_events
from ergl_jax.errors import InputError, Parser, command
from ergl_jax.files import atomic_write, local_path, make_directory, user_path


def _parser() -> Parser:
    parser = Parser(
        description="Ranks events by probability accumulated over the training split.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    labels = ".npz: clip, events, probabilities; or clip, tags"
    add("--labels", type=user_path, required=True, dest="events_file", help=labels)
    add("--manifest", type=user_path, required=True, help="CSV: file, scene, split or fold, group")
    add("--top", type=int, default=25, help="how many events to list")
    add("--out", type=local_path, help="the list to write, if not <labels>.top<N>.txt")
    arguments.add_split_flags(parser)
    parser.set_defaults(source="folder", licence="", annotations="")
    return parser


@command(resumes=False)
def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    args = _parser().parse_args(argv)
    corpus = sources.corpus(args)
    if not 1 <= args.top <= len(corpus.events):
        raise InputError(f"--top={args.top}: {args.events_file} has {len(corpus.events)} events")
    train = [clip.events for clip in corpus.clips if clip.split == "train"]
    if not train:
        raise InputError(f"{args.manifest}: no training clips to rank events over")
    probabilities = np.stack(train)  # (N, E)
    chosen = rank_events(probabilities)[: args.top]
    names = [corpus.events[index] for index in chosen]

    out = args.out or args.events_file.with_suffix(f".top{args.top}.txt")
    make_directory(out.parent, "directory")
    with atomic_write(out) as tmp:
        tmp.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    width = max(len(name) for name in ("event", *names))
    print(f"{'rank':>4}  {'event':{width}} {'accumulated':>12} {'mean':>8}")
    totals = probabilities.sum(axis=0, dtype=np.float64)[chosen]
    for rank, (name, total) in enumerate(zip(names, totals, strict=True), start=1):
        print(f"{rank:>4}  {name:{width}} {total:>12.2f} {total / len(train):>8.4f}")
    print(f"{len(names)} events by {len(train)} training clips: --config.data.events={out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
