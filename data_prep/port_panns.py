"""Ports a pretrained PANN (arXiv 1912.10211) from PyTorch to a bundle.

    python data_prep/port_panns.py --download Cnn14_16k --out data/panns/bundle
    python data_prep/port_panns.py Cnn14_16k_mAP=0.438.pth --out data/panns/bundle

A checkpoint is a .pth, .ckpt or .safetensors with a PANN's tensors under any entry and prefix, as
DataParallel, Lightning and fine-tuning save them; other tensors are ignored. It needs
PyTorch to read one: pip install ".[port]". Exit status: 0, or 2 on wrong input.
"""

if __name__ == "__main__":
    from ergl_jax.errors import leave_at_once

    leave_at_once()  # before the slow imports

import sys
import urllib.parse
from pathlib import Path

import panns_checkpoint

from ergl_jax import bundle, downloads
from ergl_jax.errors import InputError, Parser, command, warn
from ergl_jax.files import local_path, make_directory, user_path

CHECKPOINTS = panns_checkpoint.CHECKPOINTS


def _parser() -> Parser:
    parser = Parser(description="Ports a pretrained PANN to a bundle.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("checkpoint", type=local_path, nargs="?", help="a file of tensors")
    verified = [name for name, published in CHECKPOINTS.items() if published.md5]
    source.add_argument("--download", choices=verified, help="get a published one")
    add = parser.add_argument
    add("--out", type=user_path, required=True, help="the bundle's directory")
    add("--name", choices=CHECKPOINTS, help="which one the checkpoint must be")
    add("--md5", help="hex, which the checkpoint must have")
    directory = "where downloads are kept"
    add("--download_dir", type=local_path, default=Path("data/panns"), help=directory)
    add("--record", default=panns_checkpoint.RECORD, help="where the files are, under files/")
    return parser


@command(resumes=True)
def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    args = _parser().parse_args(argv)
    make_directory(bundle.check_target(args.out).parent, "directory")
    if args.download:
        if args.name or args.md5:
            raise InputError("--name and --md5 are for a checkpoint, not for --download")
        args.name, published = args.download, CHECKPOINTS[args.download]
        url = f"{args.record}/files/{urllib.parse.quote(published.file)}"
        path = args.download_dir / published.file
        args.checkpoint = downloads.fetch(url, path, md5=published.md5)
    elif args.md5:
        remedy = "get the file again, or correct --md5"
        downloads.verify(args.checkpoint, md5=args.md5.lower(), remedy=remedy)
    done = panns_checkpoint.port(args.checkpoint, name=args.name)
    done.bundle.save(args.out)
    rows = [("tensor", "shape", "use")]
    rows += [
        (name, "x".join(map(str, shape)) or "scalar", what) for name, shape, what in done.tensors
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, shape, what in rows:
        print(f"{name:{widths[0]}}  {shape:{widths[1]}}  {what}")
    if done.entry:
        print(f"entry      {done.entry}")
    if done.prefix:
        print(f"prefix     {done.prefix} is removed from the names")
    ported = done.bundle
    print(f"source     {ported.source}")
    print(f"licence    {ported.licence}")
    print(f"front end  {ported.front_end.name}")
    if ported.model.variant:
        print(f"variant    {ported.model.variant}")
    print(f"{len(ported.events)} events in {args.out}")
    if done.left_out:
        warn(
            f"{args.checkpoint}: ignored {len(done.left_out)} tensor(s) that are not the PANN's, "
            f"such as {done.left_out[0]}. If the PANN was fine-tuned with them, its AudioSet "
            "events are no longer reliable: use the bundle for model.init_from, not for labels"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
