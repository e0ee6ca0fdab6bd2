"""Lists the models that come with the package.

    ergl models
    ergl classify clip.wav --bundle esc10

A command without --bundle uses the model that the environment variable ERGL_MODEL names (a name,
path or hf://... address), else esc10.
"""

import argparse
import json
import textwrap

from ergl_jax import pretrained
from ergl_jax.errors import warn
from ergl_jax.hub import is_address

HELP = "list the models that come with the package"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object per model")


def run(args: argparse.Namespace) -> int:
    for name in pretrained.names():
        about = pretrained.about(name)
        print(json.dumps(about) if args.json else _text(about))
    if not args.json:
        named = pretrained.named()
        default = f"{named} (set by {pretrained.VARIABLE})" if named else pretrained.DEFAULT
        print(f"Without --bundle: {default}")
        if named and not is_address(named) and not pretrained.is_bundle(pretrained.find(named)):
            warn(f"{pretrained.VARIABLE}={named}: no such model, and not a bundle")
    return 0


def _text(about: dict) -> str:
    classes = about["classes"]
    lines = {
        "system": about["system"],
        "classes": f"{len(classes)}: {', '.join(classes)}",
        "accuracy": f"{about['accuracy']} % ({about['measured']})",
        "licence": about["licence"],
        "size": f"{about['bytes'] / 1e6:.1f} MB",
    }
    wrapped = (
        textwrap.fill(text, 100, initial_indent=f"  {topic:10}", subsequent_indent=12 * " ")
        for topic, text in lines.items()
    )
    return "\n".join([about["name"], *wrapped])
