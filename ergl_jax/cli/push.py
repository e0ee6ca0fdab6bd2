"""Uploads a bundle to the Hugging Face Hub, with a model card.

    pip install ".[hub]" && hf auth login
    ergl push runs/mine hf://OWNER/NAME
    ergl push runs/mine hf://OWNER/NAME@BRANCH --private --message "Trained on twice the data"

Commits config.json, model.safetensors and the model card README.md; for a run also its confusion
matrix. Creates the repository and the branch if they don't exist. The card has the licence of the
training data and, for a run, its test results. A card that you wrote yourself is not replaced.

Everything that takes --bundle takes hf://OWNER/NAME, or hf://OWNER/NAME@REVISION.
"""

import argparse

from ergl_jax import hub
from ergl_jax.errors import InputError

HELP = "upload a bundle to the Hugging Face Hub"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("bundle", type=hub.bundle_path, metavar="BUNDLE", help="a bundle or a run")
    add("address", type=address, metavar="hf://OWNER/NAME[@BRANCH]", help="the repository")
    add("--private", action="store_true", help="create a private repository")
    add("--message", default="Upload with ergl_jax", help="of the commit (%(default)s)")


def address(text: str) -> str:
    """The `type` of a flag: an address on the Hub."""
    if not hub.is_address(text):
        raise InputError(f"{text} is not {hub.FORM}")
    return str(hub.bundle_path(text))


def run(args: argparse.Namespace) -> int:
    from ergl_jax import bundle as bundles
    from ergl_jax.files import read_bytes
    from ergl_jax.inference import model_card
    from ergl_jax.training import workdirs

    bundle = bundles.load(args.bundle)
    directory = bundles.locate(args.bundle)
    workdir = workdirs.of(directory)
    is_run = (workdir / "results.json").exists()
    results = workdirs.read_results(workdir) if is_run else {}
    paths = [directory / bundles.CONFIG, directory / bundles.WEIGHTS]
    picture = workdir / model_card.PICTURE
    if results.get("test") and picture.exists():
        paths.append(picture)
    card = model_card.write(bundle, args.address, results, picture in paths)
    commit, kept = hub.push(
        args.address,
        {path.name: read_bytes(path) for path in paths} | {model_card.NAME: card.encode()},
        message=args.message,
        private=args.private,
        keep={model_card.NAME: model_card.MARK},
    )
    if kept:
        print(f"{model_card.NAME} on the Hub is unchanged: it was not written by ergl push.")
    print(f"Uploaded: {commit}")
    print(f"Next: ergl classify NEW.wav --bundle {args.address}")
    return 0
