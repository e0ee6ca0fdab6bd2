"""Explains why a recording is called what it is.

    ergl explain clip.wav --bundle runs/synthetic/bundle --out explained

Writes into --out a page to read and listen to (explanation.html), its pictures as PNG and SVG, its
numbers (explanation.json) and the graph for other programs (graph.graphml), and prints a summary.
Of a recording longer than the bundle's clips it explains the window that speaks most for its scene.
"""

import argparse

from ergl_jax.files import check_directory, local_path, user_path

HELP = "explain the scene of a recording: a page, pictures, numbers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("recording", type=local_path, metavar="CLIP", help="an audio file")
    add("--bundle", type=user_path, required=True, help="directory of a bundle of an ERGL")
    add("--out", type=local_path, required=True, metavar="DIR", help="directory to write into")
    add(
        "--method",
        choices=("gradient", "integrated"),
        default="gradient",
        help="how contributions are measured (default: gradient, times input)",
    )


def run(args: argparse.Namespace) -> int:
    check_directory(args.out, "--out")  # before what takes long

    from ergl_jax.inference import narrative, report
    from ergl_jax.inference.classify import load
    from ergl_jax.inference.explain import Explainer

    model = load(args.bundle)
    explanation = Explainer(model)(args.recording, method=args.method)
    page = report.write(explanation, model.bundle, args.out)
    print(narrative.paragraph(explanation))
    print(f"page: {page}")
    return 0
