"""Training in stages: runs of their own whose weights the run that names them begins with.

A `config.stages` lists them in order, each a dict of

  name: its work directory is <workdir>/stages/<name>;
  set: the fields in which its configuration differs, such as {"train.loss": "scene"};
  take: which of its model's submodules become which of the final model's, as {mine: theirs}; ""
    is its whole model.

Each has a seed of its own, which follows from that of the run.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import numpy as np

from ergl_jax import schema
from ergl_jax.bundle import Bundle
from ergl_jax.bundle import load as load_bundle
from ergl_jax.errors import InputError
from ergl_jax.training import workdirs
from ergl_jax.training.step import TrainState

SEEDS = 1000  # from one stage's seed to the next one's


def configs(config) -> Iterator[tuple[str, object]]:
    """The name and the configuration of each stage; InputError for one that can't be."""
    kinds, names = schema.schema_of(config.to_dict()), set()
    for number, stage in enumerate(config.stages):
        schema.check(stage, {"name": str}, f"stages[{number}]: ", others=True)
        where = f"stages[{number}] ({stage['name']}): "
        for field in ("set", "take"):
            schema.check(stage.get(field), {}, where, f"{field}.", others=True)
        schema.check(stage["take"], dict.fromkeys(stage["take"], str), where, "take.")
        if unknown := [field for field in stage if field not in ("name", "set", "take")]:
            raise InputError(f"{where}{unknown[0]} is no field of a stage")
        if not re.fullmatch(r"\w[\w.-]*", stage["name"]) or stage["name"] in names:
            raise InputError(f"{where}name a directory of its own, by letters and digits")
        names.add(stage["name"])
        each = config.copy_and_resolve_references()
        with each.unlocked():
            each.stages = ()
            each.seed = config.seed + SEEDS * (number + 1)
            for name, value in stage["set"].items():
                try:
                    each.update_from_flattened_dict({name: value})
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    reason = "no such field, or not of its type"
                    raise InputError(f"{where}set.{name}={value!r}: {reason}") from error
        schema.check(each.to_dict(), kinds, where)
        yield stage["name"], each


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


def bundles(config, workdir: Path) -> list[Bundle]:
    """What each stage left, in order."""
    return [load_bundle(directory(workdir, stage["name"]) / "bundle") for stage in config.stages]


def seconds(config, workdir: Path) -> float:
    """How long the stages trained, in all."""
    runs = (directory(workdir, stage["name"]) for stage in config.stages)
    return sum(workdirs.read_results(run)["training_seconds"] for run in runs)


def start(state: TrainState, config, workdir: Path) -> TrainState:
    """A first state with what the stages hand on."""
    variables = {"params": dict(state.params), "batch_stats": dict(state.batch_stats)}
    for stage, bundle in zip(config.stages, bundles(config, workdir), strict=True):
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
