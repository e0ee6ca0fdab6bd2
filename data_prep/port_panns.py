"""Ports a pretrained PANN (arXiv 1912.10211) from PyTorch to a bundle.

    python data_prep/port_panns.py --download Cnn14_16k --out data/panns/bundle
    python data_prep/port_panns.py Cnn14_16k_mAP=0.438.pth --out data/panns/bundle

It needs PyTorch to read a checkpoint: pip install ".[port]". Exit status: 0, or 2 on wrong input.
"""

import argparse
import sys
import urllib.parse
from pathlib import Path

from ergl_jax import downloads
from ergl_jax.errors import InputError, make_directory
from ergl_jax.inference import port
from ergl_jax.inference.bundle import CONFIG

KNOWN = ", ".join(port.CHECKPOINTS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Ports a pretrained PANN to a bundle.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("checkpoint", type=Path, nargs="?", help="a .pth of PANNs' own code")
    source.add_argument("--download", metavar="NAME", help=f"get a published one: {KNOWN}")
    parser.add_argument("--out", type=Path, required=True, help="the bundle's directory")
    parser.add_argument("--name", help=f"which the checkpoint must be: {KNOWN}")
    parser.add_argument("--md5", help="hex, which the checkpoint must have")
    parser.add_argument(
        "--download_dir", type=Path, default=Path("data/panns"), help="where downloads are kept"
    )
    parser.add_argument("--record", default=port.RECORD, help="where NAME's file is, under files/")
    return parser


def _download(name: str, directory: Path, record: str) -> Path:
    if name not in port.CHECKPOINTS:
        raise InputError(f"no PANN {name!r}: choose one of {KNOWN}")
    checkpoint = port.CHECKPOINTS[name]
    url = f"{record}/files/{urllib.parse.quote(checkpoint.file)}"
    return downloads.fetch(url, directory / checkpoint.file, md5=checkpoint.md5)


def _check_out(out: Path) -> None:
    """InputError where writing a bundle would replace something else."""
    if out.exists() and not (out.is_dir() and ((out / CONFIG).exists() or not any(out.iterdir()))):
        raise InputError(f"{out} is there already and is no bundle: choose another --out")
    make_directory(out.absolute().parent, "directory")


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    args = _parser().parse_args(argv)
    try:
        _check_out(args.out)
        if args.download:
            args.name = args.download
            args.checkpoint = _download(args.download, args.download_dir, args.record)
        elif args.md5:
            downloads.verify(args.checkpoint, md5=args.md5.lower())
        done = port.port(args.checkpoint, name=args.name)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    done.bundle.save(args.out)
    rows = [("tensor", "shape", "what became of it")]
    rows += [
        (name, "x".join(map(str, shape)) or "scalar", what) for name, shape, what in done.tensors
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, shape, what in rows:
        print(f"{name:{widths[0]}}  {shape:{widths[1]}}  {what}")
    bundle = done.bundle
    print(f"source     {bundle.source}")
    print(f"licence    {bundle.licence}")
    print(f"front end  {bundle.front_end.name}")
    print(f"{len(bundle.events)} events in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
