"""Shows what runs have learnt of each scene, over their test split.

    ergl atlas runs/synthetic --out atlas
    ergl atlas runs/seed0 runs/seed1 runs/seed2 --out atlas

For each scene: its mean relation matrix, the scene it is most confused with, with example clips,
and the relations that differ most between the two. The page shows the first run, and plays its
examples; with several runs on the same data it begins with whether their explanations agree.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ergl_jax.cli.explain import add_method
from ergl_jax.errors import InputError
from ergl_jax.files import check_directory, local_path, read_json, reading, user_path

HELP = "show what a run has learnt of each scene"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "workdirs",
        nargs="+",
        type=user_path,
        metavar="RUN",
        help="work directory of a finished run",
    )
    add("--out", type=local_path, required=True, help="directory for atlas.html and atlas.json")
    add_method(parser)


def run(args: argparse.Namespace) -> int:
    from ergl_jax.datasets import sources
    from ergl_jax.inference import atlas, atlas_page
    from ergl_jax.inference.explain import METHODS
    from ergl_jax.training import workdirs

    runs = [workdirs.of(path) for path in args.workdirs]
    out = check_directory(args.out, "--out")
    steps = METHODS[args.method]
    surveys = [atlas.survey(*open_run(workdir), steps=steps) for workdir in runs]
    agreement = atlas.agreement(surveys)
    atlas_page.write(
        out,
        surveys[0],
        agreement,
        runs=[str(path) for path in runs],
        listen=sources.listener(_data_config(runs[0])),
    )
    print(f"{len(surveys[0].names)} clips, {100 * surveys[0].accuracy:.1f} % correct")
    if agreement and agreement["clips"]:
        print(
            f"Rank correlation of explanations, over {agreement['clips']} pairs of runs that "
            "predict the same scene for a clip: "
            f"events {agreement['events']:.2f}, relations {agreement['relations']:.2f}"
        )
    print(f"Wrote {out}/atlas.html and {out}/atlas.json")
    return 0


def open_run(workdir: Path) -> tuple:
    """A finished run's Explainer, and (name, scene, log-mel (F, M)) of each clip of its test split.

    Raises InputError unless `workdir` has a bundle, and a config.json whose dataset fits it.
    """
    from ergl_jax import progress
    from ergl_jax.datasets import sources
    from ergl_jax.inference.classify import load
    from ergl_jax.inference.explain import Explainer
    from ergl_jax.training.evaluate import check_fits

    explainer = Explainer(load(workdir / "bundle"))
    config = _data_config(workdir)
    try:
        dataset = sources.open_dataset(config)
        check_fits(explainer.model.bundle, dataset)
    except InputError as error:
        raise InputError(f"{workdir}: {error}") from error
    split = dataset.split("test")

    def clips() -> Iterator[tuple]:
        for index in progress.bar(range(len(split)), desc=str(workdir), unit=" clips"):
            clip = split[index]
            yield clip["name"], dataset.scenes[clip["scene"]], clip["log_mel"]

    return explainer, clips()


def _data_config(workdir: Path) -> Any:
    """The `config.data` of a run; InputError unless its config.json has one."""
    from ergl_jax.config import DataConfig

    path = workdir / "config.json"
    with reading(path, "name the work directory of a finished run", "a run's settings"):
        saved = read_json(path)["data"]
    try:
        return DataConfig.from_saved(saved)
    except InputError as error:
        raise InputError(f"{workdir}: {error}") from error
