"""What a run writes down of itself."""

import importlib.metadata
import json
import platform
from pathlib import Path

import flax
import jax
import jaxlib
import optax

import ergl_jax
from ergl_jax import schema
from ergl_jax.errors import InputError
from ergl_jax.files import atomic_write


def versions() -> dict[str, str]:
    """What a log should say of the software that made it."""
    return {
        "ergl_jax": ergl_jax.__version__,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "flax": flax.__version__,
        "optax": optax.__version__,
        "orbax": importlib.metadata.version("orbax-checkpoint"),
    }


def read_results(workdir: Path) -> dict:
    """What a finished run left; InputError where that is damaged."""
    path = workdir / "results.json"
    again = "delete it, and the same command makes it again"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} can't be read ({error}): {again}") from error
    numbers = {"parameters": int, "gmac_per_clip": float, "training_seconds": float}
    schema.check(found, numbers, f"{path} is damaged, {again}: ", others=True)
    if found.get("test") is not None:
        accuracy = {"test": {"class_mean_accuracy": float}}
        schema.check(found, accuracy, f"{path} is damaged, {again}: ", others=True)
    return found


def write_json(path: Path, value: dict) -> None:
    """Writes a JSON file, whole or not at all."""
    with atomic_write(path) as beside:
        beside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
