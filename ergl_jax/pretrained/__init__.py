"""Models that come with the package: a folder each, of a bundle and its about.json.

data_prep/pack_model.py writes them.
"""

import os
from pathlib import Path
from typing import Any

from ergl_jax.files import read_json, user_path

HERE = Path(__file__).parent
CONFIG, ABOUT = "config.json", "about.json"
VARIABLE = "ERGL_MODEL"  # of the environment: the default model
DEFAULT = "esc10"  # without that


def names() -> list[str]:
    """The names of the models, in alphabetical order."""
    return sorted(path.parent.name for path in HERE.glob(f"*/{CONFIG}"))


def find(bundle: str | os.PathLike) -> Path:
    """The path that a user means by a path or the name of a model.

    A name is a model of this package, unless the current directory has a bundle or a run of that
    name. Raises InputError as `user_path`.
    """
    path, name = user_path(bundle), os.fspath(bundle)
    return path if name not in names() or is_bundle(path) else HERE / name


def is_bundle(path: Path) -> bool:
    """Whether a directory seems to be a bundle or a run."""
    return any((path / x / CONFIG).exists() for x in ("", "bundle"))


def named() -> str | None:
    """The model that the environment variable names, if any."""
    return os.environ.get(VARIABLE) or None


def default() -> str | Path:
    """The model where none is named: the environment variable's, else this package's DEFAULT."""
    return named() or HERE / DEFAULT


def about(name: str) -> dict[str, Any]:
    """A model's metadata, for JSON.

    "accuracy" is the class-wise mean accuracy in percent, "measured" on what; "figures" names the
    table that has it, None if it is the run's own test. "trained" has the command, date and data.
    """
    config = read_json(HERE / name / CONFIG)
    return {
        "name": name,
        "system": config["model"]["name"],
        "classes": config["scenes"],
        **read_json(HERE / name / ABOUT),
        "licence": config["licence"],
        "bytes": sum(path.stat().st_size for path in (HERE / name).iterdir()),
        "path": str(HERE / name),
    }
