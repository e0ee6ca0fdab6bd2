"""Reading files runs no code from them, imports do nothing, and only explicit commands download.

ruff's rules S (ruff.toml) forbid pickle, eval, shells and unsafe YAML in the code.
"""

import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import panns_files
import pytest
import soundfile

from configs import ergl
from ergl_jax import downloads
from ergl_jax.cli import main as ergl_main
from ergl_jax.config import Config
from ergl_jax.datasets import builder, sources
from ergl_jax.datasets.scene_files import read_scenes
from ergl_jax.errors import InputError
from ergl_jax.training import train

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "ergl_jax").rglob("*.py"))
SCRIPTS = [*sorted((ROOT / "data_prep").glob("*.py")), ROOT / "run.py"]
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
events = []  # Python's audit events of the network and of pickle, as (name, arguments)


def audit(name, arguments):
    if name in (*NETWORK, "pickle.find_class"):
        events.append((name, arguments))


sys.addaudithook(audit)


@pytest.fixture(autouse=True)
def forget_events():
    events.clear()


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
        try:
            assert read(*arguments) == 2
            (line,) = capfd.readouterr().err.splitlines()
        except InputError as error:
            line = str(error)
        assert events == [] and not marker.exists() and "\n" not in line
        return line

    return refused


def test_the_payload_works(payload, marker):
    pickle.loads(payload)
    assert marker.is_dir() and events[0] == ("pickle.find_class", ("posix", "mkdir"))


@pytest.fixture
def manifest(tmp_path):
    """A manifest of three clips."""
    rows = "".join(f"{name}.wav,park,{name}\n" for name in ("train", "validation", "test"))
    (tmp_path / "clips.csv").write_text("file,scene,split\n" + rows)
    for name in ("train", "validation", "test"):
        soundfile.write(tmp_path / f"{name}.wav", np.full(16000, 0.1), 16000)
    return tmp_path / "clips.csv"


def test_pickles_in_place_of_users_files(
    load_script, refused, tiny, payload, marker, manifest, tmp_path
):
    bundle = shutil.copytree(tiny.workdir / "bundle", tmp_path / "bundle")
    workdir = shutil.copytree(tiny.workdir, tmp_path / "run")
    trap, clip = tmp_path / "trap.npz", manifest.with_name("test.wav")
    trap.write_bytes(b"\x80" + payload)
    yaml, arrays = tmp_path / "scenes.yaml", tmp_path / "arrays.npz"
    yaml.write_text(f"events: !!python/object/apply:os.mkdir [{marker}]\nscenes: {{}}\n")
    np.savez(arrays, clip=["train", "validation", "test"], events=[Malicious(marker)] * 3)
    prepare, rank, label = (
        load_script(f"data_prep/{name}.py").main
        for name in ("prepare_dataset", "rank_events", "pseudo_label")
    )
    for path, main, arguments in (
        (trap, prepare, [f"--manifest={trap}", f"--data_dir={tmp_path}/data"]),
        (trap, rank, [f"--manifest={trap}", f"--labels={tmp_path}/a.npz"]),
        (trap, label, [f"--manifest={trap}", f"--bundle={bundle}", f"--out={tmp_path}/a.npz"]),
        (trap, prepare, [f"--manifest={manifest}", f"--events_file={trap}"]),
        (arrays, prepare, [f"--manifest={manifest}", f"--events_file={arrays}"]),
        (trap, ergl_main, ["classify", f"--bundle={bundle}", str(trap)]),
    ):
        assert str(path) in refused(main, arguments)
    assert "could not determine a constructor" in refused(read_scenes, yaml)
    config = tiny.config(data__events=str(trap))
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
        weights = {panns_files.FIRST: torch.zeros(2, 1, 3, 3)}
        content = {"model": weights, "more": Malicious(marker)}
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    main = load_script("data_prep/port_panns.py").main
    assert str(path) in refused(main, [str(path), f"--out={tmp_path}/bundle"])


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
        with contextlib.suppress(Exception):
            train.train(tiny.config(), workdir)
        looked_up = {arguments[0] for _, arguments in events}  # TensorBoard's writer has its own
        assert "posix" not in looked_up and not marker.exists(), path


def test_a_prepared_dataset(tiny, refused, payload, marker, tmp_path, monkeypatch):
    source = sources.open_dataset(tiny.config().data).path
    prepared = shutil.copytree(source, tmp_path / "dataset" / "1.0.0")
    for path in prepared.iterdir():
        whole = path.read_bytes()
        path.write_bytes(payload)
        with contextlib.suppress(Exception):
            builder.load(prepared).split("test").arrays()
        assert events == [] and not marker.exists(), path
        path.write_bytes(whole)
    assert len(builder.load(prepared).split("test")) == 10
    (prepared.parent / "evil.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")
    monkeypatch.syspath_prepend(prepared.parent)
    features = json.loads((prepared / "features.json").read_text())
    features["featuresDict"]["features"]["name"]["pythonClassName"] = "evil.Feature"
    (prepared / "features.json").write_text(json.dumps(features))
    assert "features.json can't be read: evil.Feature" in refused(builder.load, prepared)


def test_files_are_loaded_without_their_objects():
    """What ruff does not check; and one file alone uses the network, another for soundata."""
    network = set()
    for path in MODULES + SCRIPTS:
        source = path.read_text(encoding="utf-8")
        assert "allow_pickle=True" not in source, path
        assert source.count("torch.load(") == source.count("weights_only=True"), path
        if any(f"import {name}" in source for name in ("urllib.request", "http", "socket")):
            network.add(path.name)
    assert network == {"downloads.py", "soundata_manifest.py"}


IMPORT_ALL = """
import importlib, os, pkgutil, runpy, sys
done = []
def hook(event, arguments):
    writes = event == "open" and isinstance(arguments[1], str) and set("wax+") & set(arguments[1])
    if event in {network} + ("os.mkdir",) or writes and arguments[0] != os.devnull:
        done.append((event, arguments))
sys.addaudithook(hook)
import ergl_jax
names = [module.name for module in pkgutil.walk_packages(ergl_jax.__path__, "ergl_jax.")]
# Matplotlib and Gradio write to the user's home: what draws and serves is imported when it does.
DRAWING = ("pictures", "strips", "lag_pictures", "explanation_page", "atlas_page", "demo")
for name in names:
    if name.removeprefix("ergl_jax.inference.") in DRAWING:
        continue
    try:
        importlib.import_module(name)
    except ImportError as error:
        assert error.name == "onnx", error  # of an extra
for path in sys.argv[1:]:
    runpy.run_path(path, run_name="imported")
assert not {"matplotlib.font_manager", "gradio"} & set(sys.modules)
print(len(names))
assert not done, done
"""


@pytest.mark.slow
def test_imports_fetch_nothing_and_make_nothing(tmp_path):
    ours = {
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": f"{ROOT}:{ROOT}/data_prep",
    }
    kept = {name: os.environ[name] for name in ("PATH", "JAX_PLATFORMS") if name in os.environ}
    source = IMPORT_ALL.replace("{network}", repr(NETWORK))
    command = [sys.executable, "-B", "-c", source, *map(str, SCRIPTS)]  # -B: writes no bytecode
    done = subprocess.run(command, cwd=tmp_path, env=kept | ours, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(MODULES) - 1  # without ergl_jax itself
    assert list(tmp_path.iterdir()) == []


def test_training_without_its_data_names_the_download(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "_download", lambda *_: pytest.fail("downloaded"))
    config = Config.from_dict(ergl.get_config("tut2018").to_dict())
    config = config.replace(**{"data.data_dir": str(tmp_path / "data")})
    with pytest.raises(InputError, match="(?s)21.4 GB from https.* tut2018 --root="):
        train.train(config, tmp_path / "run")
    assert events == [] and list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_only_prepare_dataset_tut2018_downloads(load_script, fake_tut, tiny, manifest, tmp_path):
    main = load_script("data_prep/prepare_dataset.py").main
    small = [f"--data_dir={tmp_path}/data", "--front_end=panns_16k", "--clip_seconds=0.4"]
    given = tmp_path / "given"
    given.mkdir()
    for name, content in fake_tut.web.files.items():
        (given / name).write_bytes(content)
    assert main([]) == 2  # no source
    assert main([f"--manifest={manifest}", *small]) == 0
    assert main(["tut2018", f"--archives={given}", *small]) == 0
    train.train(tiny.config(data__data_dir=str(tmp_path / "new")), tmp_path / "run")
    ergl_main(["doctor"])
    assert fake_tut.web.asked == [] and not [name for name, _ in events if name in NETWORK]
    shutil.rmtree(tmp_path / "data" / "tut2018")
    assert main(["tut2018", *small, "--manifest_only"]) == 0
    assert events and len(fake_tut.web.asked) == 4
