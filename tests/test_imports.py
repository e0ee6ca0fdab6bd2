"""Imports run one way, and what moves fast is met in one file."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = sorted((ROOT / "ergl_jax").rglob("*.py"))
SCRIPTS = [ROOT / "run.py", *sorted((ROOT / "configs").glob("*.py"))]

# Which rooms of the package each room may import, besides itself and ergl_jax's version.
ROOMS = {
    "errors": set(),
    "files": {"errors"},
    "schema": {"errors"},
    "cpu": set(),
    "cache": set(),
    "downloads": {"files", "errors"},
    "labels": set(),
    "audio": {"errors"},
    "datasets": {"audio", "downloads", "files", "labels", "errors"},
    "kernels": set(),
    "models": {"kernels", "errors"},
    "baselines": {"kernels", "models", "errors"},
    "registry": {"baselines", "models", "errors"},
    "bundle": {"audio", "registry", "schema", "files", "errors"},
    "inference": {
        "audio",
        "bundle",
        "downloads",
        "kernels",
        "labels",
        "models",
        "schema",
        "files",
        "errors",
    },
    "training": {
        "audio",
        "bundle",
        "datasets",
        "inference",
        "kernels",
        "labels",
        "models",
        "recipes",
        "registry",
        "schema",
        "files",
        "errors",
    },
    "recipes": {"audio", "bundle", "datasets", "registry", "schema", "training", "files", "errors"},
    # What people type: it may use every room, and none uses it.
    "cli": {
        "audio",
        "bundle",
        "cache",
        "cpu",
        "datasets",
        "inference",
        "training",
        "files",
        "errors",
    },
    "__main__": {"cli"},
}
# The one file of the package that may use each of these.
ONLY = {
    "orbax": "ergl_jax/training/checkpoints.py",
    "tensorflow_datasets": "ergl_jax/datasets/builder.py",
    "grain": "ergl_jax/datasets/batches.py",
}


def imports(source: str) -> set[str]:
    """The dotted names that a source imports, at any depth of it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they lead"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms(source: str) -> set[str]:
    """The rooms of the package among its imports."""
    parts = [name.split(".") for name in imports(source)]
    return {name[1] for name in parts if name[0] == "ergl_jax" and len(name) > 1} - {"__version__"}


def mentions_pmap(source: str) -> bool:
    return any(
        "pmap" in (getattr(node, "attr", None), getattr(node, "id", None), getattr(node, "name", 0))
        for node in ast.walk(ast.parse(source))
    )


def text(path):
    return path.read_text(encoding="utf-8")


def test_the_reader_of_imports_sees_them():
    source = """
import ergl_jax
import jax.numpy as jnp
def late():
    from ergl_jax import models
    from ergl_jax.audio.decode import read_audio
    import orbax.checkpoint as ocp
"""
    assert rooms(source) == {"models", "audio"}
    assert "orbax.checkpoint" in imports(source)
    assert mentions_pmap("jax.pmap(f)") and mentions_pmap("from jax import pmap")
    assert not mentions_pmap("jax.vmap(f)")


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_rooms_below_it(path):
    room = path.relative_to(ROOT / "ergl_jax").parts[0].removesuffix(".py")
    if room != "__init__":
        assert rooms(text(path)) <= ROOMS[room] | {room}
    else:
        late = [node for node in ast.parse(text(path)).body if isinstance(node, ast.FunctionDef)]
        assert [node.name for node in late] == ["__getattr__"]
        assert rooms(text(path)) == {"inference"}
    assert not {name for name in imports(text(path)) if name.split(".")[0] in ("configs", "run")}


@pytest.mark.parametrize("library", ONLY)
def test_a_library_that_moves_fast_is_met_in_one_file(library):
    users = {
        str(path.relative_to(ROOT))
        for path in PACKAGE + SCRIPTS
        if any(name.split(".")[0] == library for name in imports(text(path)))
    }
    assert users == {ONLY[library]}


def test_pmap_is_met_in_one_file():
    users = [path.name for path in PACKAGE + SCRIPTS if mentions_pmap(text(path))]
    assert users == ["step.py"]


@pytest.mark.parametrize("path", PACKAGE + SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_tensorflow(path):
    tops = {name.split(".")[0] for name in imports(text(path))}
    assert not tops & {"tensorflow", "clu"}
