"""Exports a bundle as one file for other programs, and compares it with the bundle.

    ergl export --bundle runs/synthetic/bundle --out exported
    ergl export --bundle runs/synthetic/bundle --out scenes.onnx --format onnx

StableHLO is for JAX on CPU, CUDA and TPU (`jax.export.deserialize`). ONNX is for everything else
and needs `pip install ".[onnx]"`. The input is log-mel (batch, frames, mel bins); the JSON
next to the file describes the front end and names scenes and events.
"""

import argparse

from ergl_jax.cli.recordings import add_bundle
from ergl_jax.files import local_path

HELP = "export a bundle as StableHLO or ONNX"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_bundle(parser)
    add("--out", type=local_path, required=True, help="file to write, or directory for it")
    add("--format", choices=("stablehlo", "onnx"), default="stablehlo", help="(%(default)s)")


def run(args: argparse.Namespace) -> int:
    from ergl_jax import bundle
    from ergl_jax.inference import export

    path, about, difference = export.write(bundle.load(args.bundle), args.out, args.format)
    print(f"{path}, {path.stat().st_size / 1e6:.1f} MB")
    for name, shape in (about["input"] | about["outputs"]).items():
        print(f"  {name} ({', '.join(map(str, shape))})")
    print(f"  platforms: {', '.join(about['platforms']) or 'any ONNX runtime'}")
    batches = " and ".join(map(str, export.BATCHES))
    print(f"  differs from the bundle by at most {difference:.1e} ({batches} clips, CPU)")
    print(f"  described in {export.description_path(path)}")
    return 0
