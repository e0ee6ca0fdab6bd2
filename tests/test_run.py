"""Mistakes in the flags of run.py."""

import concurrent.futures
import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

import run

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "help": ["--help"],
    "no config": [],
    "no such source": ["--config=configs/ergl.py:nonsense"],
    "no such field": ["--config=configs/ergl.py", "--config.data.nonsense=1"],
    "misspelt field": ["--config=configs/ergl.py", "--config.train.epoch=3"],
    "field of a row": ["--config=configs/tables.py:mel", "--config.train.epochs=3"],
    "stray": ["--config=configs/ergl.py", "stray"],
    "no data": ["--config=configs/ergl.py", "--config.data.root=OUT", "--workdir=OUT/run"],
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The outcome of each of COMMANDS, run at the same time."""

    def execute(arguments):
        out = tmp_path_factory.mktemp("out")
        return out, subprocess.run(
            [sys.executable, "run.py", *(x.replace("OUT", str(out)) for x in arguments)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(COMMANDS, pool.map(execute, COMMANDS.values()), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no config", ["--config"]),
        ("no such source", ["configs/ergl.py:nonsense", "tut2018, synthetic, folder"]),
        ("no such field", ["nonsense", "configs/ergl.py"]),
        ("field of a row", ["configs/tables.py: train", "--config.overrides"]),
        ("misspelt field", ['epoch, Did you mean "epochs"']),
    ],
)
def test_a_mistake_is_one_line_and_status_two(done, name, words):
    out, result = done[name]
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and all(word in line for word in words)
    assert not list(out.iterdir())


@pytest.mark.filterwarnings("ignore:.*load_module:DeprecationWarning")  # ml_collections does
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config=configs/nope.py"], ["No such file", "configs/nope.py"]),
        (["--config=configs/nope.py", "--config.seed=1"], ["No such file", "configs/nope.py"]),
        (["--config=configs/esc10.py:nonsense"], ["get_config"]),
        (["--config=configs/ergl.py", "--config.nonsense.x=1"], ["nonsense", "configs/ergl.py"]),
        (["--config=configs/ergl.py", "--nonsense=1"], ["nonsense"]),
        (["--config=configs/ergl.py", "--config.train.epochs=many"], ["config.train.epochs=many"]),
        (["--config=configs/ergl.py", "--mode=dream"], ["--mode=dream", "train|evaluate"]),
    ],
)
def test_a_wrong_flag_is_one_line(arguments, words, monkeypatch, capsys):
    """As above, in this process."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])  # config_flags looks there
    try:
        with pytest.raises(SystemExit) as stop:
            run.parse_flags(sys.argv)
    finally:
        flags.FLAGS.unparse_flags()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and all(word in line for word in words)


@pytest.mark.slow
def test_help_lists_the_flags(done):
    _, result = done["help"]
    assert not result.stderr
    for flag in ("--config", "--workdir", "--mode"):
        assert flag in result.stdout


@pytest.mark.slow
def test_a_stray_argument_is_an_error(done):
    _, result = done["stray"]
    assert result.returncode != 0 and "'stray' is not a flag" in result.stdout + result.stderr


@pytest.mark.slow
def test_missing_data_are_explained_in_one_screen(done):
    out, result = done["no data"]
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) <= 24
    for word in (f"{out}/manifest.csv", "21.4 GB", "data_prep/prepare_dataset.py", ":synthetic"):
        assert word in result.stderr
    assert not list(out.iterdir())
    versions = result.stdout.splitlines()[1]
    assert all(name in versions for name in ("ergl_jax ", "jax ", "flax ", "python "))
