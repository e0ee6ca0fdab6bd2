"""Explains the classification of a recording.

    ergl explain clip.wav --bundle runs/synthetic/bundle --out explained

Writes a page with sound (explanation.html), its pictures as PNG and SVG, its numbers
(explanation.json) and the graph (graph.graphml) into --out, and prints a summary. Of a recording
longer than the bundle's clips it explains the window in which the scene is most probable.
"""

import argparse

from ergl_jax.cli.recordings import add_bundle, add_channel
from ergl_jax.errors import InputError
from ergl_jax.files import check_directory, find_path, local_path

HELP = "explain the scene of a recording: a page, pictures, numbers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("recording", type=local_path, metavar="CLIP", help="an audio file")
    add_bundle(parser)
    add("--out", type=local_path, required=True, metavar="DIR", help="directory to write to")
    add_channel(parser)
    add_method(parser)


def add_method(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--method",
        choices=("gradient", "integrated"),
        default="gradient",
        help="contributions: gradient times input (default) or integrated gradients",
    )


def run(args: argparse.Namespace) -> int:
    path = find_path(args.recording)
    if path.is_dir():
        raise InputError(f"{path} is a folder: give one recording")
    check_directory(args.out, "--out")  # before slow work

    from ergl_jax.inference import explanation_page, narrative
    from ergl_jax.inference.classify import load

    model = load(args.bundle)
    explanation = model.explain(path, channel=args.channel, method=args.method)
    page = explanation_page.write(explanation, model.bundle, args.out)
    if unknown := narrative.unknown(explanation):
        print(unknown)
    print(narrative.paragraph(explanation))
    print(f"page: {page}")
    return 0
