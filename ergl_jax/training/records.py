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
from ergl_jax.files import replacing


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


def write_json(path: Path, value: dict) -> None:
    """Writes a JSON file, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
