"""Serves a page to record or upload a sound and see its scene, graph and timeline.

    pip install ".[demo]"
    ergl demo --bundle runs/synthetic/bundle

It listens on this machine only. Stop it with Ctrl-C.
"""

import argparse
import os

from ergl_jax.cli.recordings import add_bundle
from ergl_jax.errors import InputError, require

HELP = "record or upload a sound in the browser"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_bundle(parser)
    add("--port", type=_port, help="default: the first free one from 7860 on")
    add("--share", action="store_true", help="through a public address of Gradio's, for 72 hours")


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 65535")
    return int(text)


def run(args: argparse.Namespace) -> int:
    require("gradio", "demo")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # its telemetry
    from ergl_jax.inference import demo
    from ergl_jax.inference.classify import load

    page = demo.build(load(args.bundle))
    try:
        demo.launch(page, port=args.port, share=args.share)
    except OSError as error:
        raise InputError(f"--port={args.port}: {error}") from error
    return 0
