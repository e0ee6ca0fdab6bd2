"""Imports go one way, and libraries whose API changes often are imported in one file each."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = sorted((ROOT / "ergl_jax").rglob("*.py"))
CODE = [ROOT / "run.py", *(ROOT / "configs").glob("*.py"), *(ROOT / "data_prep").glob("*.py")]

# The parts of the package that each part may import, besides itself.
ROOMS = {
    "errors": "",
    "files": "errors",
    "schema": "errors",
    "cache": "",
    "progress": "",
    "locks": "errors files",
    "downloads": "errors files progress",
    "labels": "",
    "audio": "errors files",
    "datasets": "audio cache config downloads errors files labels locks progress schema",
    "kernels": "",
    "models": "errors kernels",
    "baselines": "errors kernels models",
    "systems": "",
    "config": "audio errors labels models schema systems",
    "registry": "baselines config models systems",
    "known": "",
    "bundle_config": "audio config schema",
    "pretrained": "files",
    "hub": "errors files pretrained",
    "bundle": "audio bundle_config config errors files hub known pretrained registry",
    "inference": "audio bundle errors files kernels known models pretrained schema",
    "training": "audio bundle config datasets errors files hub inference kernels known locks "
    "models progress registry schema systems",
    "compiling": "audio config datasets errors files labels registry systems training",
    "recipes": "audio bundle config datasets errors files inference labels locks registry schema "
    "systems training",
    "cli": "audio bundle cache config datasets errors files hub inference kernels pretrained "
    "progress recipes training",
    "__main__": "cli errors",
    "__init__": "inference",
}
ONE_FILE = {
    "av": "ergl_jax/audio/ffmpeg.py",
    "orbax": "ergl_jax/training/checkpoints.py",
    "tensorflow_datasets": "ergl_jax/datasets/builder.py",
    "huggingface_hub": "ergl_jax/hub.py",
    "grain": "ergl_jax/datasets/batches.py",
    "librosa": "ergl_jax/inference/doctor.py",  # compiles with Numba: slow, and needs a home
    "torch": "data_prep/panns_files.py",
    "pmap": "ergl_jax/training/step.py",
}


def imports(source: str) -> set[str]:
    """The dotted names that a source imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write relative imports as absolute ones"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_inner_imports_are_seen():
    source = "import jax.numpy\ndef f():\n  from ergl_jax.audio.decode import read_audio, mono"
    decode = "ergl_jax.audio.decode"
    assert imports(source) == {"jax.numpy", f"{decode}.read_audio", f"{decode}.mono"}


def test_imports_go_one_way():
    wrong = []
    for path in PACKAGE:
        room = path.relative_to(ROOT / "ergl_jax").parts[0].removesuffix(".py")
        allowed = {room, "__version__", *ROOMS[room].split()}
        for name in imports(path.read_text(encoding="utf-8")):
            top, *inner = name.split(".")
            if top in ("configs", "run") or top == "ergl_jax" and inner and inner[0] not in allowed:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_some_libraries_are_imported_in_one_file_each():
    users = {name: set() for name in [*ONE_FILE, "tensorflow", "clu"]}
    for path in PACKAGE + CODE:
        source = path.read_text(encoding="utf-8")
        used = {name.split(".")[0] for name in imports(source)}
        for node in ast.walk(ast.parse(source)):
            used.add(getattr(node, "attr", None) or getattr(node, "id", None))
        for name in users.keys() & used:
            users[name].add(str(path.relative_to(ROOT)))
    assert users == {name: {path} for name, path in ONE_FILE.items()} | {
        "tensorflow": set(),
        "clu": set(),
    }
