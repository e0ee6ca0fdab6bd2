"""Work directories of runs: their settings, results.json and errors of writing."""

import contextlib
import importlib.metadata
import itertools
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

import ergl_jax
from ergl_jax import locks, schema
from ergl_jax.errors import InputError
from ergl_jax.files import FULL, atomic_write, is_remote, read_json, reading
from ergl_jax.training import hosts

# Fields whose values are paths
PATHS = (
    *("data.root", "data.manifest", "data.events_file", "data.annotations", "data.data_dir"),
    *("data.events", "model.init_from"),
)
# Fields that older versions lack, with their value then
ADDED = {"data.annotations": "", "augment.crop": 0.0}


def of(path: Path) -> Path:
    """The work directory: `path`, or the one whose bundle it is."""
    inside = path.name == "bundle" and (path.parent / "config.json").exists()
    return path.parent if inside else path


def check(workdir: Path, config: Mapping[str, Any]) -> None:
    """Raises InputError if `workdir` belongs to a run with another configuration than this one."""
    path = workdir / "config.json"
    if not path.exists():
        return
    with reading(path, "choose another --workdir, or delete the file to continue this run"):
        theirs = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(theirs, dict):
            raise ValueError("not a JSON object")
    old, new = flatten(theirs), flatten(json.loads(json.dumps(config)))
    old = ADDED | dict(_renamed(*each) for each in old.items())
    if different := [
        f"{name} was {old.get(name)!r}, is {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if not _are_same(name, old.get(name), new.get(name))
    ]:
        raise InputError(
            f"{workdir} belongs to a run with other settings: {'; '.join(different)}. "
            "Choose another directory, or train in a new one with --fresh"
        )


@contextlib.contextmanager
def held(workdir: Path, name: str = "lock.json") -> Iterator[None]:
    """Lets one run at a time work in `workdir`: InUse (an InputError) if there is another.

    Of a run's several processes, the first holds the lock; if it can't, all of them stop.
    """
    lock = locks.hold(
        workdir / name, f"{workdir}", "choose another directory, or start a new run with --fresh"
    )
    with contextlib.ExitStack() as stack:
        hosts.main_process_first(lambda: hosts.is_main_process() and stack.enter_context(lock))
        yield


def check_data(workdir: Path, saved: dict[str, Any], found: dict[str, Any]) -> None:
    """InputError if a run was trained on other scenes, events or numbers of clips than `found`.

    Prints a warning if the clips may have changed otherwise, by a fingerprint that has modification
    times too.
    """
    for name in saved:
        if name == "fingerprint" and saved[name] != found[name]:
            print(
                f"The manifest or the recordings have changed since the run in {workdir} started; "
                "it continues with the new ones. If clips moved between splits, start with --fresh",
                file=sys.stderr,
                flush=True,
            )
        elif saved[name] != found[name]:
            raise InputError(
                f"{workdir} was trained on other data: {name} were {saved[name]}, are "
                f"{found[name]}. Restore the data, or train in a new directory with --fresh"
            )


def flatten(config: dict) -> dict[str, Any]:
    """A nested configuration as {"train.epochs": 300, "stages.0.name": ...}."""

    def is_leaf(value: Any) -> bool:
        stages = isinstance(value, list) and value and isinstance(value[0], dict)
        return not isinstance(value, dict) and not stages

    leaves = jax.tree_util.tree_leaves_with_path(config, is_leaf=is_leaf)
    return {jax.tree_util.keystr(path, simple=True, separator="."): value for path, value in leaves}


def _are_same(field: str, old: Any, new: Any) -> bool:
    """Whether two values are the same, or two ways to write the path of one file."""
    paths = field in PATHS and old and new and not (is_remote(old) or is_remote(new))
    return old == new or bool(paths) and os.path.realpath(old) == os.path.realpath(new)


def _renamed(field: str, value: Any) -> tuple[str, Any]:
    """A field of a saved configuration as this version names it: train.fit is train.trainer."""
    name = re.sub(r"\btrain\.fit$", "train.trainer", field)
    return name, "sgd" if name != field and value == "steps" else value


def remove_unfinished(workdir: Path) -> None:
    """Removes files that a killed run had begun to write."""
    if not is_remote(workdir):
        for path in [*workdir.glob("*.writing"), *workdir.glob("evaluation/*.writing")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def first_unused(workdir: Path) -> Path:
    """The first of `workdir`, `workdir`-2, `workdir`-3 ... that does not exist."""
    others = (workdir.with_name(f"{workdir.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([workdir], others) if not path.exists())


def versions() -> dict[str, str]:
    """Versions of the software that a run's numbers depend on."""
    packages = {name: name for name in ("jax", "jaxlib", "flax", "optax")}
    packages["orbax"] = "orbax-checkpoint"
    return {"ergl_jax": ergl_jax.__version__, "python": platform.python_version()} | {
        name: importlib.metadata.version(package) for name, package in packages.items()
    }


def read_results(workdir: Path) -> dict[str, Any]:
    """`workdir/results.json` of a finished run. Raises InputError if it is damaged."""
    path = workdir / "results.json"
    remedy = "delete it, and the same command writes it again"
    results = read_json(path, remedy)
    wanted: dict = {"parameters": int, "gmac_per_clip": float, "training_seconds": float}
    if isinstance(results, dict) and results.get("test") is not None:
        wanted["test"] = {"class_mean_accuracy": float}
    schema.check(results, wanted, f"{path} is damaged, {remedy}: ", others=True)
    return results


def write_json(path: Path, value: dict) -> None:
    """Writes a JSON file atomically."""
    with atomic_write(path) as tmp_path:
        tmp_path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns errors in writing `path` during training into an InputError: a full disk, mostly."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: by tensorstore
        # tensorstore's errors have no number
        space = "make space, and " if getattr(error, "errno", None) in (None, *FULL) else ""
        raise InputError(
            f"{path} can't be written: {reason(error)}; {space}the same command continues from the "
            "last checkpoint"
        ) from error


def reason(error: Exception) -> str:
    """An error's message, short enough to be part of a line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    first_line = (str(error).splitlines() or [""])[0]
    return f"{first_line[:150]} ({type(error).__name__})"
