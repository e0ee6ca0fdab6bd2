"""Recipes of several runs: stages train first, and the final run begins with their weights.

`config.stages` lists them in order, each a dict of

  name: its work directory is <workdir>/stages/<name>;
  set: the fields in which its configuration differs, such as {"train.loss": "scene"};
  take: the weights to copy, as {submodule of the final model: submodule of the stage}; "" is the
    stage's whole model.

Each stage has a seed of its own, derived from the run's.
"""

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from ergl_jax import schema
from ergl_jax.bundle import load as load_bundle
from ergl_jax.config import Config
from ergl_jax.errors import InputError
from ergl_jax.recipes import closed_form
from ergl_jax.training import train as training
from ergl_jax.training import workdirs
from ergl_jax.training.step import TrainState

SEEDS = 1000  # from one stage's seed to the next one's


def train(config: Config, workdir: Path) -> dict:
    """Trains the missing stages of a configuration, then its final run; returns its results.

    Raises as `training.train.train`, and InputError for a wrong stage. Call it in `workdirs.held`.
    """
    workdirs.check(workdir, config.to_dict())
    for name, stage in list(configs(config)):  # all are checked before the first trains
        if not is_done(stage, directory(workdir, name)):
            print(f"Stage {name}", flush=True)
            training.train(stage, directory(workdir, name))
    runs = [directory(workdir, stage["name"]) for stage in config.stages]
    return training.train(
        config,
        workdir,
        initialise=functools.partial(hand_over, config=config, workdir=workdir),
        fit=closed_form.TRAINERS.get(config.train.trainer),
        extra_seconds=sum(workdirs.read_results(run)["training_seconds"] for run in runs),
    )


def configs(config: Config) -> Iterator[tuple[str, Config]]:
    """The name and the configuration of each stage; InputError for a wrong one."""
    names = set()
    for number, stage in enumerate(config.stages):
        where = f"stages[{number}]: "
        schema.check(stage, {"name": str, "set": dict, "take": dict}, where)
        schema.check(stage["take"], dict.fromkeys(stage["take"], str), where, "take.")
        name = stage["name"]
        if name in names or not re.fullmatch(r"\w[\w.-]*", name):
            raise InputError(f"{where}name={name!r} must be unique, of letters, digits, . _ and -")
        names.add(name)
        seed = config.seed + SEEDS * (number + 1)
        yield name, config.replace(where, stages=(), seed=seed, **stage["set"])


def directory(workdir: Path, name: str) -> Path:
    """The work directory of a stage."""
    return workdir / "stages" / name


def is_done(config: Config, workdir: Path) -> bool:
    """Whether a run has finished; InputError for another run's `workdir` or damaged results."""
    workdirs.check(workdir, config.to_dict())
    if not (workdir / "results.json").exists():
        return False
    workdirs.read_results(workdir)
    return True


def hand_over(state: TrainState, config: Config, workdir: Path) -> TrainState:
    """The state before the first step, with the weights of the stages."""
    variables = {"params": dict(state.params), "batch_stats": dict(state.batch_stats)}
    for stage in config.stages:
        trained = load_bundle(directory(workdir, stage["name"]) / "bundle").variables
        for mine, theirs in stage["take"].items():
            part = _part(trained, theirs) if theirs else trained
            shapes, wanted = (jax.tree.map(np.shape, x) for x in (part, _part(variables, mine)))
            if not part or shapes != wanted:
                raise InputError(
                    f"stage {stage['name']!r}: its {theirs or 'model'} does not fit as "
                    f"{mine!r} of model.name={config.model.name!r}"
                )
            for kind, tree in part.items():
                variables[kind][mine] = tree
    return state.replace(**variables)


def _part(variables, name: str) -> dict:
    """The params and batch_stats of a submodule, those that it has."""
    return {kind: tree[name] for kind, tree in variables.items() if name in tree}
