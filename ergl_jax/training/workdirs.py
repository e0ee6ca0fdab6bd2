"""Work directories: whose they are, and another beside one."""

import itertools
import json
import shutil
from pathlib import Path

from ergl_jax.errors import InputError
from ergl_jax.files import is_remote


def check(config, workdir: Path) -> None:
    """InputError where `workdir` belongs to a run of another configuration."""
    mine = json.loads(config.to_json())
    path = workdir / "config.json"
    if path.exists():
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(theirs, dict):
                raise ValueError("no configuration")
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(
                f"{path} is damaged ({error}): choose another --workdir, or delete the file to go "
                "on with these settings"
            ) from error
        if different := sorted(_differences(theirs, mine)):
            raise InputError(
                f"{workdir} belongs to a run with other settings: {'; '.join(different)}. "
                "Choose another --workdir, or start beside it with --fresh"
            )


def _differences(theirs: dict, mine: dict, prefix: str = "") -> list[str]:
    """Fields that differ between two nested configurations, with both values."""
    different = []
    for name in theirs.keys() | mine.keys():
        old, new = theirs.get(name), mine.get(name)
        if _is_stages(old) and _is_stages(new) and len(old) == len(new):
            old, new = dict(enumerate(old)), dict(enumerate(new))
        if isinstance(old, dict) and isinstance(new, dict):
            different += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            different.append(f"{prefix}{name} was {old!r}, is {new!r}")
    return different


def _is_stages(value) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def sweep(workdir: Path) -> None:
    """Removes what a run that was killed had begun to write."""
    if not is_remote(workdir):
        for path in [*workdir.glob("*.writing"), *workdir.glob("evaluation/*.writing")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def beside(workdir: Path) -> Path:
    """The first of `workdir`, `workdir`-2, `workdir`-3 ... where nothing is yet."""
    others = (workdir.with_name(f"{workdir.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([workdir], others) if not path.exists())
