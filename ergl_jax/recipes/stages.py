"""Recipes of several runs: stages hand their weights on to the run that lists them.

`config.stages` lists them in order, each a dict of

  name: its work directory is <workdir>/stages/<name>;
  set: the fields in which its configuration differs, such as {"train.loss": "scene"};
  take: which of its model's submodules become which of the final model's, as {mine: theirs}; ""
    is its whole model.

Each stage has a seed of its own, derived from the run's.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping
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
    """Trains the missing stages of a configuration, then its run; returns its results.

    Raises as `training.train.train`, and InputError for a wrong stage.
    """
    if not config.stages:
        return training.train(config, workdir)
    workdirs.check(config, workdir)
    for name, stage in list(configs(config)):  # all are checked before the first trains
        if not is_done(stage, directory(workdir, name)):
            print(f"Stage {name}", flush=True)
            training.train(stage, directory(workdir, name))
    fit = None
    if config.train.trainer != "sgd":
        fit = functools.partial(closed_form.fit, config.train.trainer)
    return training.train(
        config,
        workdir,
        initialise=functools.partial(hand_over, config=config, workdir=workdir),
        fit=fit,
        extra_seconds=seconds(config, workdir),
    )


def configs(config: Config) -> Iterator[tuple[str, Config]]:
    """The name and the configuration of each stage; InputError for a wrong one."""
    names = set()
    for number, stage in enumerate(config.stages):
        schema.check(stage, {"name": str}, f"stages[{number}]: ", others=True)
        where = f"stages[{number}] ({stage['name']}): "
        for field in ("set", "take"):
            schema.check(stage.get(field), {}, where, f"{field}.", others=True)
        schema.check(stage["take"], dict.fromkeys(stage["take"], str), where, "take.")
        if unknown := [field for field in stage if field not in ("name", "set", "take")]:
            raise InputError(f"{where}{unknown[0]} is an unknown field")
        if not re.fullmatch(r"\w[\w.-]*", stage["name"]) or stage["name"] in names:
            raise InputError(f"{where}the name must be a directory of its own: letters and digits")
        names.add(stage["name"])
        seed = config.seed + SEEDS * (number + 1)
        yield stage["name"], config.replace(where, stages=(), seed=seed, **stage["set"])


def directory(workdir: Path, name: str) -> Path:
    """The work directory of a stage."""
    return workdir / "stages" / name


def is_done(config, workdir: Path) -> bool:
    """Whether a run is at its end. InputError for another's `workdir`, or damaged results."""
    workdirs.check(config, workdir)
    if not (workdir / "results.json").exists():
        return False
    workdirs.read_results(workdir)
    return True


def seconds(config, workdir: Path) -> float:
    """How long the stages trained, in all."""
    runs = (directory(workdir, stage["name"]) for stage in config.stages)
    return sum(workdirs.read_results(run)["training_seconds"] for run in runs)


def hand_over(state: TrainState, config: Config, workdir: Path) -> TrainState:
    """A first state with the weights that the stages hand on."""
    variables = {"params": dict(state.params), "batch_stats": dict(state.batch_stats)}
    for stage in config.stages:
        bundle = load_bundle(directory(workdir, stage["name"]) / "bundle")
        for mine, theirs in stage["take"].items():
            found = _part(bundle.variables, theirs) if theirs else bundle.variables
            if not found or _shapes(found) != _shapes(_part(variables, mine)):
                raise InputError(
                    f"stage {stage['name']!r}: its {theirs or 'model'} does not fit as "
                    f"{mine!r} of model.name={config.model.name!r}"
                )
            for kind, tree in found.items():
                variables[kind][mine] = tree
    return state.replace(**variables)


def _part(variables: Mapping, name: str) -> dict:
    """The params and batch_stats of a submodule, where it has them."""
    return {kind: tree[name] for kind, tree in variables.items() if name in tree}


def _shapes(tree) -> str:
    return json.dumps(jax.tree.map(np.shape, tree), sort_keys=True)
