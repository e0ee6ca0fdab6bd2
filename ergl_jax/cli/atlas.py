"""Shows what runs have learnt of each scene, over their test split.

    ergl atlas runs/synthetic --out atlas
    ergl atlas runs/seed0 runs/seed1 runs/seed2 --out atlas

For each scene: its mean relation matrix, the relations that set it most apart from the scene it is
most confused with, and what it is confused with, examples named. With several runs on the same
data: whether their explanations agree. The first run is the one that is shown.
"""

import argparse

from ergl_jax.errors import InputError
from ergl_jax.files import check_directory, local_path, user_path

HELP = "show what a run has learnt of each scene"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("workdirs", nargs="+", type=user_path, metavar="WORKDIR", help="of a finished run")
    add("--out", type=local_path, required=True, help="directory for atlas.html and atlas.json")
    add(
        "--method",
        choices=("gradient", "integrated"),
        default="gradient",
        help="how contributions are measured, as of ergl explain (default: gradient)",
    )


def run(args: argparse.Namespace) -> int:
    from ergl_jax.inference import atlas
    from ergl_jax.inference.atlas_page import write
    from ergl_jax.inference.explain import integration_steps

    out = check_directory(args.out, "--out")
    steps = integration_steps(args.method)
    surveys = [atlas.survey(*opened(workdir), steps=steps) for workdir in args.workdirs]
    agreement = atlas.agreement(surveys)
    write(out, surveys[0], agreement, runs=[str(workdir) for workdir in args.workdirs])
    found = surveys[0]
    accuracy = (found.predicted == found.truth).mean()
    print(f"{len(found.names)} clips, {100 * accuracy:.1f} % named right")
    if agreement and agreement["clips"]:
        print(
            f"Rank correlation of explanations over {agreement['clips']} pairs of equal answers: "
            f"events {agreement['events']:.2f}, relations {agreement['relations']:.2f}"
        )
    print(f"Wrote {out}/atlas.html and {out}/atlas.json")
    return 0


def opened(workdir):
    """A finished run's Explainer, and (name, scene, log-mel) of each clip of its test split."""
    import json

    import tqdm
    from ml_collections import ConfigDict

    from ergl_jax.datasets import sources
    from ergl_jax.inference.classify import load
    from ergl_jax.inference.explain import Explainer
    from ergl_jax.training.evaluate import check_fits

    explainer = Explainer(load(workdir / "bundle"))
    try:
        config = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
        dataset = sources.open_dataset(ConfigDict(config["data"]))
    except InputError:
        raise
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{workdir} is no run's work directory: {error!r}") from error
    try:
        check_fits(explainer.model.bundle, dataset)
    except InputError as error:
        raise InputError(f"{workdir}: {error}") from error
    split = dataset.split("test")

    def clips():
        for index in tqdm.trange(len(split), desc=str(workdir), unit=" clips"):
            clip = split[index]
            yield clip["name"], dataset.scenes[clip["scene"]], clip["log_mel"]

    return explainer, clips()
