"""Two programs in one directory: the second stops, or waits if it only needs the result."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from compare_runs import assert_same

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def command(tiny):
    return ("--config=configs/test.py", f"--config.data.data_dir={tiny.data_dir}")


def held(process, path):
    """Waits for the lock that the process makes, and stops it there; its text."""
    process.until(lambda: path.exists() and path.read_text())
    process.send(signal.SIGSTOP)
    return json.loads(path.read_text())


def test_the_second_run_in_a_work_directory_stops_at_once(start, command, tmp_path):
    workdir = tmp_path / "run"
    first = start(*command, f"--workdir={workdir}")
    lock = held(first, workdir / "lock.json")
    assert lock["pid"] == first.pid
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    second = start(*command, f"--workdir={workdir}")
    assert second.wait() == 2, second.output()
    line = second.last_lines()[-1]
    assert line.startswith(f"error: {workdir} is in use by process {first.pid} on {lock['host']}")
    assert lock["since"] in line and "--fresh" in line
    assert before == {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    fresh = start(*command, f"--workdir={workdir}", "--fresh")
    assert fresh.wait() == 0, fresh.output()
    assert f"--workdir={workdir}-2" in fresh.output()
    first.send(signal.SIGCONT)
    assert first.wait() == 0, first.output()
    assert_same(workdir, tmp_path / "run-2")
    assert not list(tmp_path.glob("*/lock.json"))


def test_the_second_table_stops_at_once_and_another_shard_does_not(start, tmp_path):
    table = ["--config=configs/tables.py:mel", "--config.source=synthetic"]
    short = "train.epochs=1", "optimizer.warmup_epochs=0.0", "train.batch_size=8"
    small = "model.encoder.width_divisor=32", "data.clip_seconds=2.0"
    small += ("data.train_clips_per_scene=3", "data.test_clips_per_scene=1")
    data = f"data.data_dir={tmp_path / 'data'}"
    table += [f"--config.overrides={(*short, *small, data)!r}"]
    workdir = tmp_path / "table"
    first = start(*table, f"--workdir={workdir}")
    lock = held(first, workdir / "lock-0-of-1.json")
    second = start(*table, f"--workdir={workdir}")
    assert second.wait() == 2, second.output()
    assert f"is in use by process {lock['pid']}" in second.last_lines()[-1]
    other = start(*table, f"--workdir={workdir}", "--config.shard=1/2")
    assert other.wait() == 0, other.output()
    first.send(signal.SIGCONT)
    assert first.wait() == 0, first.output()
    assert "1 of 1" in (workdir / "table.md").read_text()


@pytest.fixture
def corpus(tmp_path):
    """A manifest of 24 recordings."""
    rng, rows = np.random.default_rng(0), ["file,scene,split,event:Dog"]
    for number in range(24):
        soundfile.write(tmp_path / f"{number}.wav", rng.normal(0, 0.1, 32000), 16000)
        split = ("train", "test")[number % 2]
        rows.append(f"{number}.wav,{('tram', 'park')[number % 4 // 2]},{split},0.5")
    (tmp_path / "my.csv").write_text("\n".join(rows))
    return tmp_path / "my.csv"


@pytest.fixture
def program():
    """Starts a program of data_prep; what still runs after a test is killed."""
    started = []

    def program(name, *arguments):
        process = subprocess.Popen(
            [sys.executable, f"data_prep/{name}", *map(str, arguments)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "GLIBC_TUNABLES": ""},
        )
        started.append(process)
        return process

    yield program
    for process in started:
        process.kill()
        process.communicate()


def refused(program, first, lock, *command):
    """Stops `first` at its lock, a pattern; the same command is then refused."""
    while not any(path.read_text() for path in lock.parent.glob(lock.name)):
        assert first.poll() is None, first.communicate()
        time.sleep(0.001)
    first.send_signal(signal.SIGSTOP)
    second = program(*command)
    _, err = second.communicate(timeout=120)
    assert second.returncode == 2, err
    assert f"is in use by process {first.pid} on " in err.splitlines()[-1]


def ends(first):
    first.send_signal(signal.SIGCONT)
    out, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    return out


def test_features_are_prepared_once(corpus, tmp_path, start, program):
    """prepare_dataset.py stops; a run, which needs them, waits."""
    flags = ["--front_end=panns_16k", "--clip_seconds=2", "--validation_fraction=0"]
    flags.append(f"--data_dir={tmp_path / 'data'}")
    command = ["prepare_dataset.py", f"--manifest={corpus}", *flags]
    first = program(*command)
    refused(program, first, tmp_path / "data" / "ergl_scenes" / "*.lock", *command)
    data = {"source": "folder", "manifest": corpus, "front_end": "panns_16k", "clip_seconds": 2.0}
    data |= {"data_dir": tmp_path / "data", "num_events": 1, "validation_fraction": 0.0}
    settings = [f"--config.data.{name}={value}" for name, value in data.items()]
    settings += ["--config.train.epochs=1", "--config.optimizer.warmup_epochs=0.0"]
    run = start("--config=configs/test.py", f"--workdir={tmp_path / 'run'}", *settings)
    run.until(lambda: ": waiting" in run.output())
    path = ends(first).splitlines()[0]
    assert run.wait() == 0, run.output()
    assert "features:" not in run.output()
    (prepared,) = (tmp_path / "data" / "ergl_scenes").iterdir()
    assert Path(path).is_relative_to(prepared)


def test_labels_are_made_once(corpus, tmp_path, tiny, program):
    out = tmp_path / "my.events.npz"
    bundle = f"--bundle={tiny.workdir / 'bundle'}"
    command = ["pseudo_label.py", bundle, f"--manifest={corpus}", f"--out={out}"]
    first = program(*command)
    refused(program, first, tmp_path / "my.events.npz.lock", *command)
    ends(first)
    assert out.exists() and not list(tmp_path.glob("my.events.npz.*"))
