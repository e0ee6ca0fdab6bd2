"""Wrong settings through run.py: values, fields, files, and work directories of something else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).resolve().parents[3]
# Overrides, and what the line says. {} is the folder.
CONFIGS = {  # those that tests/test_config.py leaves to the command
    "more events than there are": ({"data.num_events": 99}, ["data.num_events=99"]),
    "the paper's list": ({"data.events": "paper"}, ["data.events=paper"]),
    "no list": ({"data.events": "{}/none.txt"}, ["data.events=", "none.txt", "No such file"]),
    "an unknown event": ({"data.events": "{}/unknown.txt"}, ["unknown.txt", "'Unicorn'"]),
    "an event twice": ({"data.events": "{}/twice.txt"}, ["twice.txt", "'Dog' twice"]),
    "an empty list": ({"data.events": "{}/empty.txt"}, ["empty.txt", "is empty"]),
    "no text": ({"data.events": "{}/bytes.txt"}, ["bytes.txt", "not UTF-8"]),
    "a batch of more than all": ({"train.batch_size": 4000}, ["train.batch_size", "4000"]),
    "no epochs": ({"train.epochs": 0}, ["config.train.epochs=0"]),
    "epochs in words": ({"train.epochs": "abc"}, ["config.train.epochs=abc"]),
    "NaN": ({"optimizer.learning_rate": "nan"}, ["config.optimizer.learning_rate=nan"]),
    "no bundle to start from": ({"model.init_from": "{}/none"}, ["none is not a bundle"]),
    "unknown front end": ({"data.front_end": "mel"}, ["'mel'", "panns_16k"]),
    "no data_dir": ({"data.data_dir": ""}, ["data_dir is empty"]),
    "unknown field": ({"train.epoch": 3}, ["epoch", '"epochs"']),
    "unknown group": ({"training.epochs": 3}, ["training"]),
    "width that divides no block": (
        {"model.encoder.width_divisor": 3},
        ["width_divisor=3 does not divide"],
    ),
}


@pytest.fixture
def train(commands, tiny):
    """Refuses run.py's flags; what features there are, are the tiny run's."""
    for name, text in (("unknown", "Unicorn"), ("twice", "Dog\nDog"), ("empty", " \n")):
        (commands.here / f"{name}.txt").write_text(text)
    (commands.here / "bytes.txt").write_bytes(b"\xff\xfe\xfa")

    def train(*flags, words, config="configs/test.py", workdir=commands.here / "run"):
        flags = [flag.replace("{}", str(commands.here)) for flag in flags]
        if not any(flag.startswith("--config.data.data_dir") for flag in flags):
            flags.insert(0, f"--config.data.data_dir={tiny.data_dir}")
        commands.refuse("run.py", f"--config={config}", f"--workdir={workdir}", *flags, words=words)

    return train


@pytest.mark.filterwarnings("ignore:.*load_module:DeprecationWarning")  # ml_collections does
@pytest.mark.parametrize("name", CONFIGS)
def test_a_wrong_setting(train, name):
    settings, words = CONFIGS[name]
    train(*(f"--config.{field}={value}" for field, value in settings.items()), words=words)


FILES = {
    "none.py": (None, ["none.py", "No such file"]),
    "syntax.py": ("def get_config(:", ["syntax.py"]),
    "import.py": ("import nonsense_of_no_name", ["nonsense_of_no_name"]),
    "nothing.py": ("", ["get_config"]),
    "raises.py": ("def get_config():\n    return 1 / 0", ["division by zero"]),
    "number.py": ("def get_config():\n    return 7", ["number.py"]),
    "less.py": (
        "from configs import ergl\ndef get_config():\n    config = ergl.get_config()\n"
        "    with config.unlocked():\n        del config.data.long\n    return config",
        ["config.data.long is missing"],
    ),
    "more.py": (
        "from configs import ergl\ndef get_config():\n    config = ergl.get_config()\n"
        "    with config.unlocked():\n        config.train.wings = 2\n    return config",
        ["config.train.wings is"],
    ),
}


@pytest.mark.filterwarnings("ignore:.*load_module:DeprecationWarning")
@pytest.mark.parametrize("name", FILES)
def test_a_wrong_config_file(commands, monkeypatch, name):
    text, words = FILES[name]
    if text is not None:
        (commands.here / name).write_text(text)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    commands.refuse("run.py", f"--config={commands.here / name}", words=words)


@pytest.mark.filterwarnings("ignore:.*load_module:DeprecationWarning")
def test_wrong_flags_of_the_run(train, commands):
    (commands.here / "file").write_text("kept")
    train("--mode=dream", words=["--mode=dream"])
    train("--nonsense=1", words=["nonsense"])
    train(workdir="", words=["--workdir is empty"])
    train(workdir=commands.here / "file", words=[f"{commands.here / 'file'}"])
    train("--mode=evaluate", words=["run/bundle is not a bundle"])


DAMAGED = {
    "no JSON": ("{", ["config.json can't be read"]),
    "a list": ("[]", ["config.json can't be read"]),
    "null": ("null", ["config.json can't be read"]),
    "no text": ("\xff", ["config.json can't be read"]),
    "nested": ("[" * 100_000, ["config.json can't be read"]),
    "a folder": (None, ["config.json can't be read"]),
    "another's": (json.dumps({"seed": 7}), ["seed was 7, is 0", "another directory"]),
}


@pytest.mark.filterwarnings("ignore:.*load_module:DeprecationWarning")
@pytest.mark.parametrize("name", DAMAGED)
def test_a_wrong_work_directory(train, commands, name):
    text, words = DAMAGED[name]
    path = commands.here / "run" / "config.json"
    path.parent.mkdir()
    path.mkdir() if text is None else path.write_bytes(text.encode("latin-1"))
    train(words=[f"{commands.here / 'run'}", *words])


@pytest.mark.slow
def test_a_batch_that_devices_cannot_share(tmp_path):
    """In a process of its own: a process has its devices once and for all."""
    done = subprocess.run(
        [
            *(
                sys.executable,
                "run.py",
                "--config=configs/test.py",
                f"--workdir={tmp_path / 'run'}",
            ),
            *("--config.train.batch_size=7", f"--config.data.data_dir={tmp_path / 'data'}"),
        ],
        cwd=ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: train.batch_size=7 is not a multiple of the 2 devices")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "platform"), [("train", "nonsense"), ("train", "cuda"), ("classify", "tpu")]
)
def test_a_platform_that_is_not_here(program, platform, commands, bundle, clip):
    here = commands.here
    train = ["run.py", "--config=configs/test.py", f"--workdir={here / 'run'}"]
    train.append(f"--config.data.data_dir={here / 'data'}")
    classify = ["-m", "ergl_jax", "classify", "--bundle", bundle, clip]
    before = sorted(here.rglob("*"))
    if platform == "cuda" and jax.default_backend() == "gpu":
        pytest.skip("it is here")
    done = subprocess.run(
        [sys.executable, *{"train": train, "classify": classify}[program]],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": platform},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"error: JAX_PLATFORMS='{platform}': ")
    assert "Traceback" not in done.stderr
    assert sorted(here.rglob("*")) == before
