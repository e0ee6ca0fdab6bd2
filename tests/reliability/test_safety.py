"""Files run no code when they are read, imports do nothing, and downloads come by asking alone."""

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
CODE = [
    *sorted((ROOT / "ergl_jax").rglob("*.py")),
    *sorted((ROOT / "data_prep").glob("*.py")),
    ROOT / "run.py",
]
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
_watched: list[tuple[tuple[str, ...], list]] = []


def _watch(event, arguments):
    for names, seen in _watched:
        if event in names:
            seen.append((event, arguments))


sys.addaudithook(_watch)


@contextlib.contextmanager
def watched(*names):
    """Lends a list of what Python's audit events of these names tell meanwhile."""
    seen = []
    _watched.append((names, seen))
    try:
        yield seen
    finally:
        _watched.pop()


class Malicious:
    """Makes a directory where it is unpickled."""

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
def inert(marker):
    """Reads what may be a trap, and finds it shut: one InputError of one line, no class looked up.

    Returns the line.
    """

    def inert(read, *arguments, **keywords):
        with watched("pickle.find_class") as seen, pytest.raises(InputError) as caught:
            read(*arguments, **keywords)
        assert seen == [] and not marker.exists()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return inert


@pytest.fixture
def run(marker, capfd):
    """Runs a command on what may be a trap; returns its one line."""

    def run(main, *arguments):
        with watched("pickle.find_class") as seen:
            assert main([str(argument) for argument in arguments]) == 2
        assert seen == [] and not marker.exists()
        out, err = capfd.readouterr()
        (line,) = err.splitlines()
        assert out == "" and line.startswith("error: ")
        return line

    return run


def test_the_trap_works(payload, marker, tmp_path):
    with watched("pickle.find_class") as seen:
        pickle.loads(payload)
    assert marker.is_dir() and seen[0][1] == ("posix", "mkdir")
    marker.rmdir()
    np.savez(tmp_path / "a.npz", events=np.array([Malicious(marker)]))
    np.load(tmp_path / "a.npz", allow_pickle=True)["events"]
    assert marker.is_dir()


# Files of users, reader by reader.


@pytest.fixture
def manifest(tmp_path):
    """A manifest of three clips."""
    rows = "".join(f"{name}.wav,park,{name}\n" for name in ("train", "validation", "test"))
    (tmp_path / "clips.csv").write_text("file,scene,split\n" + rows)
    for name in ("train", "validation", "test"):
        soundfile.write(tmp_path / f"{name}.wav", np.full(16000, 0.1), 16000)
    return tmp_path / "clips.csv"


@pytest.mark.parametrize("poisoned", ["clip", "events", "probabilities", "tags"])
def test_events_of_an_npz(load_script, run, manifest, marker, poisoned):
    arrays = dict(clip=["train", "validation", "test"], events=["Dog"], probabilities=np.eye(3, 1))
    if poisoned == "tags":
        del arrays["probabilities"]
    arrays[poisoned] = np.array([Malicious(marker)] * 3)
    np.savez(manifest.with_suffix(".events.npz"), **arrays)
    main = load_script("data_prep/prepare_dataset.py").main
    line = run(main, f"--manifest={manifest}", f"--data_dir={manifest.parent}/data")
    assert "clips.events.npz: not an .npz of plain arrays" in line


@pytest.mark.parametrize("script", ["prepare_dataset", "rank_events", "pseudo_label"])
def test_a_pickle_in_place_of_a_manifest(load_script, run, tiny, payload, tmp_path, script):
    path = tmp_path / "clips.csv"
    path.write_bytes(b"\x80" + payload)
    more = {
        "prepare_dataset": [f"--data_dir={tmp_path}/data"],
        "rank_events": [f"--labels={tmp_path}/a.npz"],
        "pseudo_label": [f"--bundle={tiny.workdir}/bundle", f"--out={tmp_path}/a.npz"],
    }[script]
    main = load_script(f"data_prep/{script}.py").main
    assert str(path) in run(main, f"--manifest={path}", *more)


def test_a_pickle_in_place_of_events_or_of_a_ranking(load_script, run, inert, manifest, payload):
    path = manifest.with_name("trap.npz")
    path.write_bytes(payload)
    main = load_script("data_prep/prepare_dataset.py").main
    assert str(path) in run(main, f"--manifest={manifest}", f"--events_file={path}")
    config = ergl.get_config("folder")
    config.data.events = str(path)
    assert str(path) in inert(train.train, config, manifest.with_name("run"))


@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
def test_a_checkpoint_of_pytorch(load_script, run, payload, marker, tmp_path, form):
    torch = pytest.importorskip("torch")
    path = tmp_path / "Cnn14.pth"
    if form == "pickle":
        path.write_bytes(payload)
    else:
        content = {
            "model": {panns_checkpoint.FIRST: torch.zeros(2, 1, 3, 3)},
            "more": Malicious(marker),
        }
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    line = run(load_script("data_prep/port_panns.py").main, path, f"--out={tmp_path}/bundle")
    assert str(path) in line and not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_bundle(tiny, run, payload, manifest, tmp_path, name):
    bundle = shutil.copytree(tiny.workdir / "bundle", tmp_path / "bundle")
    (bundle / name).write_bytes(payload)
    line = run(ergl_main, "classify", f"--bundle={bundle}", manifest.with_name("test.wav"))
    assert name in line


def test_a_recording(tiny, run, payload, tmp_path):
    (tmp_path / "clip.wav").write_bytes(payload)
    line = run(ergl_main, "classify", f"--bundle={tiny.workdir / 'bundle'}", tmp_path / "clip.wav")
    assert "clip.wav" in line


@pytest.mark.parametrize("form", ["stablehlo", "onnx"])
def test_an_export(inert, payload, tmp_path, form):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
    path = tmp_path / f"model.{form}"
    path.write_bytes(payload)
    said = {"format": form, "sha256": hashlib.sha256(payload).hexdigest()}
    export.description_path(path).write_text(json.dumps(said))
    assert str(path) in inert(export.load, path)
    export.description_path(path).write_bytes(payload)
    assert f"model.{form}.json" in inert(export.load, path)


@pytest.fixture
def workdir(tiny, tmp_path):
    """A run that has an epoch to go."""
    return shutil.copytree(tiny.workdir, tmp_path / "run")


def test_the_configuration_of_a_work_directory(tiny, inert, payload, workdir):
    (workdir / "config.json").write_bytes(payload)
    assert "config.json" in inert(train.train, tiny.config(), workdir)


def test_checkpoints_of_a_run(tiny, payload, marker, workdir):
    """A file of each kind in turn; what is said of a damaged one is tested elsewhere."""
    checkpoints = workdir / "checkpoints"
    kept = shutil.copytree(checkpoints, workdir.with_name("kept"))
    last = max((kept / "latest").iterdir(), key=lambda path: int(path.name))
    kinds = {}
    for path in sorted(last.rglob("*")):
        if path.is_file():  # the arrays' files have hashes for names
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


@pytest.fixture
def prepared(tiny, tmp_path):
    """A copy of the prepared dataset: its own directory."""
    path = sources.open_dataset(tiny.config().data).path
    return shutil.copytree(path, tmp_path / "dataset" / "1.0.0")


def test_a_prepared_dataset(prepared, payload, marker):
    for path in prepared.iterdir():
        whole = path.read_bytes()
        path.write_bytes(payload)
        with watched("pickle.find_class") as seen, contextlib.suppress(Exception):
            builder.load(prepared).split("test").arrays()
        assert seen == [] and not marker.exists(), path
        path.write_bytes(whole)
    assert len(builder.load(prepared).split("test")) == 10


def test_a_prepared_dataset_that_names_a_module_to_import(prepared, inert, marker, monkeypatch):
    (prepared.parent / "evil.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")
    monkeypatch.syspath_prepend(prepared.parent)
    features = json.loads((prepared / "features.json").read_text())
    for key in ("pythonClassName", "type"):
        named = features | {key: "evil.Feature"}
        (prepared / "features.json").write_text(json.dumps(named))
        assert "features.json: evil.Feature" in inert(builder.load, prepared)
    inner = features["featuresDict"]["features"]["name"]
    inner["pythonClassName"] = "evil.Feature"
    (prepared / "features.json").write_text(json.dumps(features))
    assert "features.json: evil.Feature" in inert(builder.load, prepared)


# The code itself.

PICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def unsafe(source):
    """What a source does that could run code of a file, or of a shell; names of it."""
    found, tree = [], ast.parse(source)
    safe = {"yaml.SafeLoader"} | {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and [ast.unparse(base) for base in node.bases] == ["yaml.SafeLoader"]
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += {name.split(".")[0] for name in names} & PICKLERS
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        flags = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"):
            found.append(name)
        if flags.get("shell", "False") != "False" or None in flags and "subprocess" in name:
            found.append("shell")
        if flags.get("allow_pickle", "False") != "False":
            found.append("allow_pickle")
        if name in ("np.load", "numpy.load") and flags.get("allow_pickle") != "False":
            found.append("np.load")
        if name.startswith("yaml.") and "load" in name and name != "yaml.safe_load":
            if flags.get("Loader") not in safe:
                found.append("yaml")
        if name == "torch.load" and flags.get("weights_only") != "True":
            found.append("torch.load")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n  import joblib",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "class L(yaml.FullLoader): pass\nyaml.load(text, Loader=L)",
        "yaml.unsafe_load_all(text)",
        "eval('1')",
        "exec(x)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "np.lib.npyio.NpzFile(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
    ],
)
def test_the_reader_of_code_sees(source):
    assert unsafe(source)


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_reads_pickles_evaluates_text_or_asks_a_shell(path):
    assert unsafe(path.read_text(encoding="utf-8")) == []


def test_a_scene_file_makes_no_object(marker, tmp_path, inert):
    path = tmp_path / "scenes.yaml"
    path.write_text(f"events: !!python/object/apply:os.mkdir [{marker}]\nscenes: {{}}\n")
    assert "not YAML: could not determine a constructor" in inert(read_scenes, path)


# Imports.

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
names.remove("ergl_jax.__main__")  # it is the program
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


def test_imports_fetch_nothing_and_make_nothing(tmp_path):
    home, temporary, here = (tmp_path / name for name in ("home", "tmp", "here"))
    for path in (home, temporary, here):
        path.mkdir()
    ours = {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    # Python's own caches of sources are made by whoever imports first.
    kept = {name: os.environ[name] for name in ("PATH", "JAX_PLATFORMS") if name in os.environ}
    modules = [path for path in CODE if path.is_relative_to(ROOT / "ergl_jax")]
    scripts = [str(path) for path in CODE if path not in modules]
    done = subprocess.run(
        [sys.executable, "-B", "-c", IMPORT_ALL.replace("{network}", repr(NETWORK)), *scripts],
        cwd=here,
        env=kept | ours,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(modules) - 2  # ergl_jax itself, and __main__
    for path in (home, temporary, here):
        assert list(path.rglob("*")) == []


# Downloads.


def test_one_file_knows_the_network_and_two_ask_it():
    users, askers = set(), set()
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {getattr(node, "module", "") or "", *(each.name for each in node.names)}
                if names & {"urllib.request", "http.client", "socket", "requests", "ftplib"}:
                    users.add(path.name)
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "fetch":
                if ast.unparse(node.func) == "mirror.fetch":  # a user's own bucket, by epath
                    continue
                askers.add(path.name)
    assert users == {"downloads.py"} and askers == {"tut2018.py", "port_panns.py"}


def test_addresses_are_of_https_and_what_comes_is_checked():
    urls = [archive.url for archive in tut2018.DEVELOPMENT.archives] + [panns_checkpoint.RECORD]
    assert all(url.startswith("https://") for url in urls)
    assert all(archive.size and len(archive.md5) == 32 for archive in tut2018.DEVELOPMENT.archives)
    assert all(len(each.md5) == 32 for each in panns_checkpoint.CHECKPOINTS.values())


def test_training_without_its_data_says_what_to_download(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "_download", lambda *_: pytest.fail("downloaded"))
    config = ergl.get_config("tut2018")
    config.data.data_dir = str(tmp_path / "data")
    with watched(*NETWORK) as seen, pytest.raises(InputError) as caught:
        train.train(config, tmp_path / "run")
    assert "prepare_dataset.py tut2018 --root=" in str(caught.value)
    assert "21.4 GB from https://" in str(caught.value)
    assert seen == [] and list(tmp_path.iterdir()) == []


def test_only_its_name_downloads_tut2018(load_script, fake_tut, manifest, tmp_path):
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
    assert seen == [] and fake_tut.web.asked == []
    shutil.rmtree(tmp_path / "data" / "tut2018")
    with watched(*NETWORK) as seen:
        assert main(["tut2018", *small, "--manifest_only"]) == 0
    assert seen and len(fake_tut.web.asked) == 4


def test_a_run_from_its_corpus_to_its_bundle_asks_nobody(tiny, tmp_path):
    with watched(*NETWORK) as seen:
        train.train(tiny.config(data__data_dir=str(tmp_path / "data")), tmp_path / "run")
        ergl_main(["doctor"])
    assert seen == []
