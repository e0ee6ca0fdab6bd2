"""Two processes of two devices each: they train as one of four, and exit together."""

import json
import shutil
import signal
import socket

import numpy as np
import pytest
from compare_runs import lines
from safetensors.numpy import load_file

pytestmark = pytest.mark.slow
EPOCHS = 3
STREAMED = "--config.data.resident=never"
CONFIG = ["--config=configs/test.py", "--config.optimizer.schedule=constant"]


def address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


class Processes:
    """Starts run.py in one process or two, with several CPU devices."""

    def __init__(self, start, data_dir):
        self.start, self.config = start, [*CONFIG, f"--config.data.data_dir={data_dir}"]

    def one(self, devices, *argv, instead=""):
        """`instead` is Python source that is run instead of run.py."""
        hook = f"import jax; jax.config.update('jax_num_cpu_devices', {devices})\n{instead}"
        return self.start(*self.config, *argv, hook=hook)

    def pair(self, *argv, different=("", "")):
        common = [*argv, f"--coordinator_address={address()}", "--num_processes=2"]
        return [
            self.one(2, *common, f"--process_id={number}", *filter(None, [extra]))
            for number, extra in enumerate(different)
        ]


@pytest.fixture(scope="module")
def processes(start, tmp_path_factory):
    return Processes(start, tmp_path_factory.mktemp("hosts") / "data")


@pytest.fixture(scope="module")
def trained(processes, tmp_path_factory):
    """Work directories of one process with four devices and of two with two each, and the two.

    The two prepare the features and stream their share; the one has them in device memory.
    """
    base, epochs = tmp_path_factory.mktemp("trained"), f"--config.train.epochs={EPOCHS}"
    both = processes.pair(f"--workdir={base / 'two'}", epochs, STREAMED)
    one = processes.one(4, f"--workdir={base / 'one'}", epochs, "--config.data.resident=always")
    for process in (*both, one):
        assert process.wait() == 0, process.output()
    return base / "one", base / "two", both


def scores(workdir):
    """Of the test split; accuracy and clips of a scene as scores of their own."""
    test = json.loads((workdir / "results.json").read_text())["test"]
    for scene, values in test.pop("by_scene").items():
        test |= {f"{name} of {scene}": x for name, x in values.items()}
    return test


def test_two_processes_train_validate_and_test_as_one_does(trained):
    one, two, _ = trained
    a, b = (load_file(workdir / "bundle" / "model.safetensors") for workdir in (one, two))
    assert a.keys() == b.keys()
    for name in a:
        if name.startswith("params"):
            assert np.abs(a[name] - b[name]).max() < 1e-5, name
        else:  # running statistics are up to 50
            np.testing.assert_allclose(b[name], a[name], rtol=1e-5, atol=1e-5, err_msg=name)
    assert scores(two) == pytest.approx(scores(one), rel=1e-4, abs=1e-5)
    for x, y in zip(lines(one), lines(two), strict=True):
        assert x == pytest.approx(y, rel=1e-4, abs=1e-5)
    rows = [(workdir / "predictions.csv").read_text().splitlines() for workdir in (one, two)]
    assert [row.split(",")[:2] for row in rows[0]] == [row.split(",")[:2] for row in rows[1]]


def test_only_process_0_writes(trained):
    one, two, (first, second) = trained
    files = [
        {
            path.name
            for path in workdir.rglob("*")
            if "checkpoints" not in path.parts and "tfevents" not in path.name
        }
        for workdir in (one, two)
    ]
    assert files[0] == files[1]
    assert len(list((two / "tensorboard").iterdir())) == 1
    assert "class_mean_accuracy" in first.output()
    assert "class_mean_accuracy" not in second.output() and "epochs:" not in second.output()


def test_one_process_with_one_device_resumes_from_their_checkpoint(trained, processes, tmp_path):
    workdir = shutil.copytree(trained[1], tmp_path / "run")
    for path in (workdir / "checkpoints").glob(f"*/{EPOCHS}"):
        shutil.rmtree(path)
    shutil.rmtree(workdir / "bundle")
    (workdir / "results.json").unlink()
    flags = (f"--workdir={workdir}", f"--config.train.epochs={EPOCHS}", STREAMED)
    process = processes.one(1, *flags)
    assert process.wait() == 0, process.output()
    assert f"after epoch {EPOCHS - 1} of" in process.output()
    assert [line["epoch"] for line in lines(workdir)] == list(range(1, EPOCHS + 1))
    assert scores(workdir) and (workdir / "bundle" / "config.json").exists()


def test_a_signal_to_one_process_ends_both(processes, trained, tmp_path):
    """SIGTERM after the same epoch, the current or the next; SIGKILL after both have resumed."""
    workdir = tmp_path / "run"
    argv = (f"--workdir={workdir}", "--config.train.epochs=100000", STREAMED)
    both = processes.pair(*argv)
    latest = workdir / "checkpoints" / "latest"
    both[0].until((latest / "2").is_dir)
    both[1].send(signal.SIGTERM)
    before = lines(workdir)[-1]["epoch"]
    assert [process.wait(60) for process in both] == [128 + signal.SIGTERM] * 2
    done = lines(workdir)[-1]["epoch"]
    assert done <= before + 2
    assert all(f"epoch {done} of 100000 is saved" in process.output() for process in both)

    for killed in (1, 0):  # process 0 coordinates
        both = processes.pair(*argv)
        both[0].until((latest / str(done + 2)).is_dir)
        assert all(f"after epoch {done} of" in process.output() for process in both)
        both[killed].kill()
        survivor = both[1 - killed]
        assert survivor.wait(60) != 0
        known = ("another task died", "another process", "leader task died")
        assert any(part in survivor.output() for part in known), survivor.output()
        done = max(int(path.name) for path in latest.iterdir() if path.name.isdigit())


def test_processes_with_different_settings_stop(processes, trained, tmp_path):
    both = processes.pair(f"--workdir={tmp_path / 'run'}", different=("", "--config.seed=1"))
    for process in both:
        assert process.wait(60) == 2, process.output()
        assert "error: the processes of this run differ in their flags" in process.output()
    assert not (tmp_path / "run").exists()


def test_a_missing_flag_is_named(processes, tmp_path):
    process = processes.one(1, "--num_processes=2", f"--workdir={tmp_path / 'run'}")
    assert process.wait() == 2
    line = process.last_lines()[-1]
    assert line.startswith("error: ") and "--coordinator_address=HOST:PORT" in line


SCANS = """
import os, sys
import numpy as np, optax
sys.path.insert(0, "tests/training")
import test_step as toys
from ergl_jax.training import hosts
from ergl_jax.training.step import init_state, replicate, unreplicate
if {processes} > 1:
    hosts.start("{address}", {processes}, {number})
optimiser = optax.adamw(1e-3)
data = replicate(toys.examples(3, 4))
found = []
for scan in (True, False):
    state = init_state(toys.Toy(), optimiser, seed=0, shape=(3, 4))
    trainer = toys.trainer(toys.Toy(), optimiser)
    state, metrics = trainer.epoch(replicate(state), data, toys.schedule(), scan=scan)
    params = unreplicate(state.params)["Dense_0"]["kernel"]
    found.append(np.concatenate([params.ravel(), metrics["loss"]]))
np.save("{out}", found)
os._exit(0)
"""


def test_a_scanned_epoch_gives_the_same_numbers(processes, tmp_path):
    """As on GPU and TPU; the runs above take step by step, as on CPU."""
    where, outs = address(), [tmp_path / f"{name}.npy" for name in "abc"]
    started = [
        processes.one(
            devices, instead=SCANS.format(processes=count, number=number, address=where, out=out)
        )
        for devices, count, number, out in zip((2, 2, 4), (2, 2, 1), (0, 1, 0), outs, strict=True)
    ]
    for process in started:
        assert process.wait() == 0, process.output()
    first, second, alone = map(np.load, outs)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, alone, atol=1e-6)
