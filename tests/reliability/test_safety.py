"""Reading files runs no code from them, imports do nothing, and only explicit commands download."""

import ast
import contextlib
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import panns_checkpoint
import pytest
import soundfile

from configs import ergl
from ergl_jax import downloads
from ergl_jax.cli import main as ergl_main
from ergl_jax.datasets import builder, sources, tut2018
from ergl_jax.datasets.scene_files import read_scenes
from ergl_jax.errors import InputError
from ergl_jax.inference import export
from ergl_jax.training import train

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "ergl_jax").rglob("*.py"))
SCRIPTS = [*sorted((ROOT / "data_prep").glob("*.py")), ROOT / "run.py"]
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
_watched: list[tuple[tuple[str, ...], list]] = []


def _watch(event, arguments):
    for names, seen in _watched:
        if event in names:
            seen.append((event, arguments))


sys.addaudithook(_watch)


@contextlib.contextmanager
def watched(*names):
    """Yields a list that collects Python's audit events of these names."""
    seen = []
    _watched.append((names, seen))
    try:
        yield seen
    finally:
        _watched.pop()


class Malicious:
    """Makes a directory when it is unpickled."""

    def __init__(self, marker):
        self._marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self._marker,)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "taken"


@pytest.fixture
def payload(marker):
    return pickle.dumps(Malicious(marker), protocol=2)


@pytest.fixture
def refused(marker, capfd):
    """Reads a malicious file; checks that nothing is unpickled, and returns the error, one line."""

    def refused(read, *arguments):
        with watched("pickle.find_class") as seen:
            try:
                assert read(*arguments) == 2
                (line,) = capfd.readouterr().err.splitlines()
            except InputError as error:
                line = str(error)
        assert seen == [] and not marker.exists() and "\n" not in line
        return line

    return refused


def test_the_payload_works(payload, marker):
    with watched("pickle.find_class") as seen:
        pickle.loads(payload)
    assert marker.is_dir() and seen[0][1] == ("posix", "mkdir")


@pytest.fixture
def manifest(tmp_path):
    """A manifest of three clips."""
    rows = "".join(f"{name}.wav,park,{name}\n" for name in ("train", "validation", "test"))
    (tmp_path / "clips.csv").write_text("file,scene,split\n" + rows)
    for name in ("train", "validation", "test"):
        soundfile.write(tmp_path / f"{name}.wav", np.full(16000, 0.1), 16000)
    return tmp_path / "clips.csv"


def test_arrays_of_events(load_script, refused, manifest, marker):
    main = load_script("data_prep/prepare_dataset.py").main
    for poisoned in ("clip", "events", "probabilities", "tags"):
        arrays = dict(clip=["train", "validation", "test"], events=["Dog"])
        if poisoned != "tags":
            arrays["probabilities"] = np.eye(3, 1)
        arrays[poisoned] = np.array([Malicious(marker)] * 3)
        np.savez(manifest.with_suffix(".events.npz"), **arrays)
        line = refused(main, [f"--manifest={manifest}", f"--data_dir={manifest.parent}/data"])
        assert "clips.events.npz" in line and "plain arrays" in line


def test_pickles_in_place_of_users_files(load_script, refused, tiny, payload, manifest, tmp_path):
    """As manifest, events, ranking, bundle, recording, and configuration of a work directory."""
    bundle = shutil.copytree(tiny.workdir / "bundle", tmp_path / "bundle")
    workdir = shutil.copytree(tiny.workdir, tmp_path / "run")
    trap, clip = tmp_path / "trap.npz", manifest.with_name("test.wav")
    trap.write_bytes(b"\x80" + payload)
    prepare, rank, label = (
        load_script(f"data_prep/{name}.py").main
        for name in ("prepare_dataset", "rank_events", "pseudo_label")
    )
    for main, arguments in (
        (prepare, [f"--manifest={trap}", f"--data_dir={tmp_path}/data"]),
        (rank, [f"--manifest={trap}", f"--labels={tmp_path}/a.npz"]),
        (label, [f"--manifest={trap}", f"--bundle={bundle}", f"--out={tmp_path}/a.npz"]),
        (prepare, [f"--manifest={manifest}", f"--events_file={trap}"]),
        (ergl_main, ["classify", f"--bundle={bundle}", str(trap)]),
    ):
        assert str(trap) in refused(main, arguments)
    config = ergl.get_config("folder")
    config.data.events = str(trap)
    assert str(trap) in refused(train.train, config, tmp_path / "new")
    (workdir / "config.json").write_bytes(payload)
    assert "config.json" in refused(train.train, tiny.config(), workdir)
    for name in ("config.json", "model.safetensors"):
        shutil.copytree(tiny.workdir / "bundle", bundle, dirs_exist_ok=True)
        (bundle / name).write_bytes(payload)
        assert name in refused(ergl_main, ["classify", f"--bundle={bundle}", str(clip)])


@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
def test_a_checkpoint_of_pytorch(load_script, refused, payload, marker, tmp_path, form):
    torch = pytest.importorskip("torch")
    path = tmp_path / "Cnn14.pth"
    if form == "pickle":
        path.write_bytes(payload)
    else:
        weights = {panns_checkpoint.FIRST: torch.zeros(2, 1, 3, 3)}
        content = {"model": weights, "more": Malicious(marker)}
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    main = load_script("data_prep/port_panns.py").main
    assert str(path) in refused(main, [str(path), f"--out={tmp_path}/bundle"])
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("form", ["stablehlo", "onnx"])
def test_an_export(refused, payload, tmp_path, form):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
    path = tmp_path / f"model.{form}"
    path.write_bytes(payload)
    about = {"format": form, "sha256": hashlib.sha256(payload).hexdigest()}
    export.description_path(path).write_text(json.dumps(about))
    assert str(path) in refused(export.load, path)
    export.description_path(path).write_bytes(payload)
    assert f"model.{form}.json" in refused(export.load, path)


@pytest.mark.slow
def test_checkpoints_of_a_run(tiny, payload, marker, tmp_path):
    """A file of each kind in turn; errors about damaged ones are tested elsewhere."""
    workdir = shutil.copytree(tiny.workdir, tmp_path / "run")
    checkpoints = workdir / "checkpoints"
    kept = shutil.copytree(checkpoints, tmp_path / "kept")
    last = max((kept / "latest").iterdir(), key=lambda path: int(path.name))
    kinds = {}
    for path in sorted(last.rglob("*")):
        if path.is_file():  # files of arrays are named by hashes
            kinds.setdefault("d" if path.parent.name == "d" else path.name, path)
    assert len(kinds) > 5
    for path in kinds.values():
        shutil.rmtree(checkpoints)
        shutil.copytree(kept, checkpoints)
        (checkpoints / path.relative_to(kept)).write_bytes(payload)
        with watched("pickle.find_class") as seen, contextlib.suppress(Exception):
            train.train(tiny.config(), workdir)
        looked_up = {arguments[0] for _, arguments in seen}  # TensorBoard's writer has its own
        assert "posix" not in looked_up and not marker.exists(), path


def test_a_prepared_dataset(tiny, refused, payload, marker, tmp_path, monkeypatch):
    source = sources.open_dataset(tiny.config().data).path
    prepared = shutil.copytree(source, tmp_path / "dataset" / "1.0.0")
    for path in prepared.iterdir():
        whole = path.read_bytes()
        path.write_bytes(payload)
        with watched("pickle.find_class") as seen, contextlib.suppress(Exception):
            builder.load(prepared).split("test").arrays()
        assert seen == [] and not marker.exists(), path
        path.write_bytes(whole)
    assert len(builder.load(prepared).split("test")) == 10
    (prepared.parent / "evil.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")
    monkeypatch.syspath_prepend(prepared.parent)
    features = json.loads((prepared / "features.json").read_text())
    inner = json.loads(json.dumps(features))
    inner["featuresDict"]["features"]["name"]["pythonClassName"] = "evil.Feature"
    for changed in (features | {"pythonClassName": "evil.Feature"}, inner):
        (prepared / "features.json").write_text(json.dumps(changed))
        assert "features.json" in refused(builder.load, prepared)


def test_a_scene_file(refused, marker, tmp_path):
    path = tmp_path / "scenes.yaml"
    path.write_text(f"events: !!python/object/apply:os.mkdir [{marker}]\nscenes: {{}}\n")
    assert "could not determine a constructor" in refused(read_scenes, path)


PICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CLIENTS = {"urllib.request", "http.client", "socket", "requests", "ftplib"}


def unsafe(source):
    """Calls and imports in a source that could run code of a file or of a shell."""
    found, tree = [], ast.parse(source)
    loaders = {"yaml.SafeLoader"} | {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and "yaml.SafeLoader" in map(ast.unparse, node.bases)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += {name.split(".")[0] for name in names} & PICKLERS
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        flags = {word.arg: ast.unparse(word.value) for word in node.keywords}
        calls = ("eval", "exec", "compile", "__import__", "os.system", "os.popen")
        if (
            name in calls
            or flags.get("shell", "False") != "False"
            or flags.get("allow_pickle", "False") != "False"
            or (name in ("np.load", "numpy.load") and "allow_pickle" not in flags)
            or (name.startswith("yaml.") and "load" in name and flags.get("Loader") not in loaders)
            or (name == "torch.load" and flags.get("weights_only") != "True")
        ):
            found.append(name)
    return found


def test_no_code_reads_pickles_evaluates_text_or_starts_a_shell():
    for source in (
        "from pickle import loads",
        "yaml.load(text, Loader=yaml.Loader)",
        "class L(yaml.FullLoader): pass\nyaml.load(text, Loader=L)",
        "eval('1')",
        "np.load(path)",
        "f(path, allow_pickle=True)",
        "torch.load(path)",
        "subprocess.run('ls', shell=True)",
    ):
        assert unsafe(source), source
    clients = set()
    for path in MODULES + SCRIPTS:
        source = path.read_text(encoding="utf-8")
        assert unsafe(source) == [], path
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {getattr(node, "module", ""), *(each.name for each in node.names)}
                clients |= {path.name} if names & CLIENTS else set()
    assert clients == {"downloads.py"}


IMPORT_ALL = """
import importlib.util, os, pkgutil, runpy, sys
done = []
def hook(event, arguments):
    writes = event == "open" and isinstance(arguments[1], str) and set("wax+") & set(arguments[1])
    if event in {network} + ("os.mkdir",) or writes and arguments[0] != os.devnull:
        done.append((event, arguments))
sys.addaudithook(hook)
import ergl_jax
names = [module.name for module in pkgutil.walk_packages(ergl_jax.__path__, "ergl_jax.")]
names.remove("ergl_jax.__main__")  # which would run the command
for name in names:
    try:
        importlib.import_module(name)
    except ImportError as error:
        assert error.name == "onnx", error  # of an extra
for path in sys.argv[1:]:
    runpy.run_path(path, run_name="imported")
print(len(names))
assert not done, done
"""


@pytest.mark.slow
def test_imports_fetch_nothing_and_make_nothing(tmp_path):
    ours = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    kept = {name: os.environ[name] for name in ("PATH", "JAX_PLATFORMS") if name in os.environ}
    source = IMPORT_ALL.replace("{network}", repr(NETWORK))
    done = subprocess.run(
        [sys.executable, "-B", "-c", source, *map(str, SCRIPTS)],  # -B: writes no bytecode
        cwd=tmp_path,
        env=kept | ours,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(MODULES) - 2  # without ergl_jax itself and __main__
    assert list(tmp_path.iterdir()) == []


def test_downloads_use_https_and_checksums():
    archives, checkpoints = tut2018.DEVELOPMENT.archives, panns_checkpoint.CHECKPOINTS.values()
    for url in [*(archive.url for archive in archives), panns_checkpoint.RECORD]:
        assert url.startswith("https://")
    assert all(archive.size for archive in archives)
    assert all(len(each.md5) == 32 for each in (*archives, *checkpoints))


def test_training_without_its_data_names_the_download(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "_download", lambda *_: pytest.fail("downloaded"))
    config = ergl.get_config("tut2018")
    config.data.data_dir = str(tmp_path / "data")
    with watched(*NETWORK) as seen, pytest.raises(InputError) as caught:
        train.train(config, tmp_path / "run")
    assert "prepare_dataset.py tut2018 --root=" in str(caught.value)
    assert "21.4 GB from https://" in str(caught.value)
    assert seen == [] and list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_only_prepare_dataset_tut2018_downloads(load_script, fake_tut, tiny, manifest, tmp_path):
    main = load_script("data_prep/prepare_dataset.py").main
    small = [f"--data_dir={tmp_path}/data", "--front_end=panns_16k", "--clip_seconds=0.4"]
    given = tmp_path / "given"
    given.mkdir()
    for name, content in fake_tut.web.files.items():
        (given / name).write_bytes(content)
    with watched(*NETWORK) as seen:
        assert main([]) == 2  # no source
        assert main([f"--manifest={manifest}", *small]) == 0
        assert main(["tut2018", f"--archives={given}", *small]) == 0
        train.train(tiny.config(data__data_dir=str(tmp_path / "new")), tmp_path / "run")
        ergl_main(["doctor"])
    assert seen == [] and fake_tut.web.asked == []
    shutil.rmtree(tmp_path / "data" / "tut2018")
    with watched(*NETWORK) as seen:
        assert main(["tut2018", *small, "--manifest_only"]) == 0
    assert seen and len(fake_tut.web.asked) == 4
