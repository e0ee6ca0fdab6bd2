"""Mistakes in the flags of run.py."""

import sys

import pytest
from absl import flags
from programs import ROOT, python

import run
from configs import ergl
from ergl_jax.config import Config


@pytest.mark.filterwarnings("ignore:.*load_module:DeprecationWarning")  # ml_collections does
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--config=configs/nope.py", ["No such file", "configs/nope.py"]),
        ("--config=configs/nope.py --config.seed=1", ["No such file", "configs/nope.py"]),
        ("--config=configs/esc10.py:nonsense", ["get_config"]),
        ("--config=configs/ergl.py:nonsense", ["nonsense", "tut2018, synthetic, delays, folder"]),
        ("--config=configs/ergl.py --config.nonsense.x=1", ["nonsense", "configs/ergl.py"]),
        (
            "--config=configs/ergl.py --config.train.epoch=3",
            ['config.train.epoch is an unknown field; did you mean "epochs"?', "configs/ergl.py"],
        ),
        (
            "--config=configs/ergl.py --config.training.epochs=3",
            ["config.training.epochs is an unknown field", "configs/ergl.py"],
        ),
        (
            "--config=configs/ergl.py --config.train.epochs=many",
            ["config.train.epochs=many is not a whole number (see configs/ergl.py)"],
        ),
        (
            "--config=configs/ergl.py --config.optimizer.learning_rate=fast",
            ["config.optimizer.learning_rate=fast is not a number"],
        ),
        ("--config=configs/ergl.py --config.model.mel=7", ["config.model.mel=7 is not True or"]),
        (
            "--config=configs/tables.py:mel --config.train.epochs=3",
            ["config.train.epochs is an unknown field of configs/tables.py", "--config.overrides"],
        ),
        ("--config=configs/ergl.py --nonsense=1", ["nonsense"]),
        ("--config=configs/ergl.py --mode=dream", ["--mode=dream", "train|evaluate"]),
    ],
)
def test_a_wrong_flag_is_one_line(arguments, words, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments.split()])  # config_flags looks there
    try:
        with pytest.raises(SystemExit) as stop:
            run.parse_flags(sys.argv)
    finally:
        flags.FLAGS.unparse_flags()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and all(word in line for word in words)


def test_each_source_has_a_default_work_directory():
    found = {}
    for file in ("ergl.py", "ergl.py:synthetic", "ergl.py:folder", "ergl.py:soundscapes"):
        config = ergl.get_config(*file.split(":")[1:])
        with config.unlocked():
            config.data.manifest = "my.csv"
        config = Config.from_dict(config.to_dict())
        found[file] = run.default_workdir(f"configs/{file}", config)
    names = "tut2018", "synthetic", "folder", "soundscapes"
    assert list(found.values()) == [f"runs/{name}-ergl" for name in names]
    assert run.default_workdir("my.py:large", config) == "runs/folder-ergl"


@pytest.mark.slow
def test_help_and_mistakes_in_the_whole_program():
    shown = python("run.py", "--help")
    assert not shown.stderr
    assert all(flag in shown.stdout for flag in ("--config", "--workdir", "--mode"))
    without = python("run.py")
    (line,) = without.stderr.splitlines()
    assert without.returncode == 2 and line.startswith("error: ") and "--config" in line
    stray = python("run.py", "--config=configs/ergl.py", "stray")
    assert stray.returncode != 0 and "'stray' is not a flag" in stray.stdout + stray.stderr


@pytest.mark.slow
def test_missing_data_are_explained_in_one_screen(tmp_path):
    out = f"--config.data.root={tmp_path}", f"--workdir={tmp_path}/run"
    result = python("run.py", "--config=configs/ergl.py", *out)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) <= 24
    for word in (f"{tmp_path}/manifest.csv", "21.4 GB", "prepare_dataset.py", ":synthetic"):
        assert word in result.stderr
    assert not list(tmp_path.iterdir())
    versions = result.stdout.splitlines()[1]
    assert all(name in versions for name in ("ergl_jax ", "jax ", "flax ", "python "))
