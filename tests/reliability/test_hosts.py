"""Two processes of two devices each: they train as one of four, and end together."""

import concurrent.futures
import json
import shutil
import signal
import socket
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

EPOCHS = 3
STREAMED = "--config.data.resident=never"
CONFIG = ["--config=configs/test.py", "--config.optimizer.schedule=constant"]


def address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


class Starting:
    """Starts run.py in one process or two, with devices of a CPU."""

    def __init__(self, start, data_dir):
        self.start, self.config = start, [*CONFIG, f"--config.data.data_dir={data_dir}"]

    def one(self, devices, *argv, instead=""):
        """With `instead`, that Python source and not run.py."""
        hook = f"import jax; jax.config.update('jax_num_cpu_devices', {devices})\n{instead}"
        return self.start(*self.config, *argv, hook=hook)

    def pair(self, *argv, different=("", "")):
        common = [*argv, f"--coordinator_address={address()}", "--num_processes=2"]
        return [
            self.one(2, *common, f"--process_id={number}", *filter(None, [extra]))
            for number, extra in enumerate(different)
        ]


@pytest.fixture(scope="module")
def starting(start, tmp_path_factory):
    return Starting(start, tmp_path_factory.mktemp("hosts") / "data")


@pytest.fixture(scope="module")
def trained(starting, tmp_path_factory):
    """Work directories of one process with four devices and of two with two each.

    The two prepare the features, for the one that comes later too, and read their share from disk.
    """
    base, epochs = tmp_path_factory.mktemp("trained"), f"--config.train.epochs={EPOCHS}"
    both = starting.pair(f"--workdir={base / 'two'}", epochs, STREAMED)
    one = starting.one(4, f"--workdir={base / 'one'}", epochs, "--config.data.resident=always")
    for process in (*both, one):
        assert process.wait() == 0, process.output()
    return base / "one", base / "two", both


def scores(workdir):
    return json.loads((workdir / "results.json").read_text())["test"]


def epochs(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["epoch"] for line in lines]


def test_two_processes_train_what_one_does(trained):
    one, two, _ = trained
    a, b = (load_file(workdir / "bundle" / "model.safetensors") for workdir in (one, two))
    assert a.keys() == b.keys()
    parameters = [name for name in a if name.startswith("params")]
    difference = max(np.abs(a[name] - b[name]).max() for name in parameters)
    print(f"largest difference of a parameter: {difference:.1e}")
    assert difference < 1e-5
    for name in a.keys() - set(parameters):  # running statistics are up to 50
        np.testing.assert_allclose(b[name], a[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_they_share_validation_and_test(trained):
    one, two, _ = trained
    assert scores(two) == pytest.approx(scores(one), rel=1e-4, abs=1e-5)
    lines = [
        [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        for workdir in (one, two)
    ]
    for a, b in zip(*lines, strict=True):
        assert a.pop("clips_per_second") and b.pop("clips_per_second")
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5)
    rows = [(workdir / "predictions.csv").read_text().splitlines() for workdir in (one, two)]
    assert [row.split(",")[:2] for row in rows[0]] == [row.split(",")[:2] for row in rows[1]]


def test_one_of_them_writes(trained):
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
    assert epochs(two) == list(range(1, EPOCHS + 1))
    assert len(list((two / "tensorboard").iterdir())) == 1
    assert "class_mean_accuracy" in first.output()
    assert "class_mean_accuracy" not in second.output() and "epochs:" not in second.output()


def await_epoch(workdir, epoch, process):
    deadline = time.monotonic() + 60
    while not (workdir / "checkpoints" / "latest" / str(epoch)).is_dir():
        assert time.monotonic() < deadline, process.output()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def stopped(starting, trained, tmp_path_factory):
    """Two processes of which one got SIGTERM as they trained: flags, work directory, both."""
    workdir = tmp_path_factory.mktemp("stopped") / "run"
    argv = [f"--workdir={workdir}", "--config.train.epochs=100000", STREAMED]
    both = starting.pair(*argv)
    await_epoch(workdir, 2, both[0])
    both[1].send(signal.SIGTERM)
    done = epochs(workdir)[-1]  # after: whatever held this process up before is no epoch of theirs
    return argv, workdir, both, done


def test_a_sigterm_to_one_stops_both_after_the_same_epoch(stopped):
    """The one that goes on, or the next where that was about to end."""
    _, workdir, both, done = stopped
    assert [process.wait(60) for process in both] == [128 + signal.SIGTERM] * 2
    line = f"stopped by SIGTERM: epoch {epochs(workdir)[-1]} of 100000 is saved in {workdir}"
    assert all(line in process.output() for process in both)
    assert epochs(workdir)[-1] <= done + 2


@pytest.fixture(scope="module")
def killed(starting, stopped):
    """They go on, and one of them is killed; by its number, a future of how the other ends."""
    argv, workdir, *_ = stopped

    def end(survivor, start):
        return survivor.wait(60), time.monotonic() - start, survivor.output()

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        ends = {}
        for number in (1, 0):
            copy = shutil.copytree(workdir, workdir.with_name(f"without{number}"))
            both, done = starting.pair(f"--workdir={copy}", *argv[1:]), epochs(copy)[-1]
            await_epoch(copy, done + 2, both[0])
            assert all(f"Going on after epoch {done} of" in each.output() for each in both)
            both[number].kill()
            ends[number] = pool.submit(end, both[1 - number], time.monotonic())
        yield ends


def test_one_process_with_one_device_goes_on(trained, killed, starting, tmp_path):
    """As if the two had been killed before they could save their last epoch.

    It does so while the survivors of `killed` wait for their partners.
    """
    _, two, _ = trained
    workdir = tmp_path / "run"
    shutil.copytree(two, workdir)
    for path in (workdir / "checkpoints").glob(f"*/{EPOCHS}"):
        shutil.rmtree(path)
    shutil.rmtree(workdir / "bundle")
    (workdir / "results.json").unlink()
    process = starting.one(
        1,
        f"--workdir={workdir}",
        f"--config.train.epochs={EPOCHS}",
        STREAMED,
    )
    assert process.wait() == 0, process.output()
    assert f"Going on after epoch {EPOCHS - 1} of" in process.output()
    assert epochs(workdir) == list(range(1, EPOCHS + 1))
    assert scores(workdir) and (workdir / "bundle" / "config.json").exists()


@pytest.mark.parametrize("number", [1, 0])
def test_one_killed_ends_the_other(killed, number):
    """Process 0 coordinates them."""
    status, seconds, output = killed[number].result()
    print(f"without {number} the survivor ended after {seconds:.0f} s with status {status}")
    assert status != 0
    known = ("another task died", "another process", "leader task died")
    assert any(part in output for part in known), output


def test_processes_with_different_settings_stop(starting, trained, tmp_path):
    both = starting.pair(f"--workdir={tmp_path / 'run'}", different=("", "--config.seed=1"))
    for process in both:
        assert process.wait(60) == 2, process.output()
        assert "error: the processes of this run differ in their flags" in process.output()
    assert not (tmp_path / "run").exists()


def test_a_start_that_says_too_little_is_a_line(starting, tmp_path):
    process = starting.one(1, "--num_processes=2", f"--workdir={tmp_path / 'run'}")
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


def test_an_epoch_in_one_program_is_the_same(starting, tmp_path):
    """As GPUs and TPUs run it; the starts above run step by step, as CPUs do."""
    where, outs = address(), [tmp_path / f"{name}.npy" for name in "abc"]
    processes = [
        starting.one(
            devices, instead=SCANS.format(processes=count, number=number, address=where, out=out)
        )
        for devices, count, number, out in zip((2, 2, 4), (2, 2, 1), (0, 1, 0), outs, strict=True)
    ]
    for process in processes:
        assert process.wait() == 0, process.output()
    first, second, alone = map(np.load, outs)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, alone, atol=1e-6)
