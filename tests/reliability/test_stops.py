"""Runs that stop for a reason: a signal, damage, a full disk, numbers that are not finite."""

import json
import re
import shutil
import signal
import subprocess

import numpy as np
import pytest
from compare_runs import assert_same, checkpoints, lines

from ergl_jax.datasets import batches, sources
from ergl_jax.datasets.scene_split import SceneSplit
from ergl_jax.errors import InputError
from ergl_jax.training import train

pytestmark = pytest.mark.slow
EPOCHS = 3
CNN = {"model__name": "cnn"}


@pytest.fixture(scope="module")
def command(tiny):
    """The arguments of the same command, without its work directory."""
    flags = [f"--config.train.epochs={EPOCHS}", "--config.model.name=cnn"]
    return ("--config=configs/test.py", f"--config.data.data_dir={tiny.data_dir}", *flags)


@pytest.fixture(scope="module")
def whole(start, command, tmp_path_factory):
    """A run that was not stopped."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    run = start(*command, f"--workdir={workdir}")
    assert run.wait() == 0, run.output()
    return workdir


def messages(run):
    """The lines of a run, without those it starts with."""
    return [line for line in run.last_lines() if not line.startswith(("train in", "ergl_jax"))]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_run_in_a_line(start, command, whole, tmp_path, number):
    workdir = tmp_path / "run"
    run = start(*command, f"--workdir={workdir}")
    run.until((workdir / "checkpoints" / "latest" / "1").is_dir)
    run.send(number)
    assert run.wait() == 128 + number, run.output()
    (line,) = messages(run)
    if number == signal.SIGTERM:  # after the current epoch
        epoch = lines(workdir)[-1]["epoch"]
        assert f"latest/{epoch}" in checkpoints(workdir)
        assert line.startswith(f"stopped by SIGTERM: epoch {epoch} of {EPOCHS}")
    else:
        assert line.startswith("interrupted; the same command")
    run = start(*command, f"--workdir={workdir}")
    assert run.wait() == 0, run.output()
    assert_same(workdir, whole)


def damage(checkpoint):
    """Truncates all files of data: which of them are read depends on when they were filled."""
    files = [path for path in (checkpoint / "state").rglob("d/*") if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 10])


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(whole, tiny, tmp_path, capfd):
    workdir = shutil.copytree(whole, tmp_path / "run")
    damage(workdir / "checkpoints" / "latest" / str(EPOCHS))
    train.train(tiny.config(**CNN, train__epochs=EPOCHS), workdir)
    out, err = capfd.readouterr()
    (line,) = [line for line in err.splitlines() if "damaged" in line]
    assert line.startswith(f"{workdir}/checkpoints/latest/{EPOCHS} is damaged and skipped: ")
    assert f"after epoch {EPOCHS - 1} of {workdir}" in out
    assert [line["epoch"] for line in lines(workdir)] == list(range(1, EPOCHS + 1))
    found, expected = (checkpoints(each)[f"latest/{EPOCHS}"][0] for each in (workdir, whole))
    for name, array in expected.items():  # trained on several devices here, on one there
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-4)


def test_a_run_without_a_readable_checkpoint_stops_and_changes_nothing(
    start, command, whole, tmp_path
):
    workdir = shutil.copytree(whole, tmp_path / "run")
    for each in (workdir / "checkpoints" / "latest").iterdir():
        damage(each)
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    run = start(*command, f"--workdir={workdir}")
    assert run.wait() == 2, run.output()
    *skipped, line = messages(run)
    assert re.match(r"error: no checkpoint in \S*/latest can be read: .*--fresh", line)
    assert len(skipped) == 2 and all("is damaged and skipped" in each for each in skipped)
    after = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    assert before == after
    shutil.rmtree(workdir / "checkpoints")  # and without any it does not start again
    run = start(*command, f"--workdir={workdir}")
    assert run.wait() == 2 and "no checkpoint" in messages(run)[0]
    assert lines(workdir) == lines(whole)


def test_a_damaged_best_is_replaced_by_the_one_before_or_the_last(whole, tiny, tmp_path, capfd):
    """If all are damaged, the error says how to test the last epoch instead."""
    workdir = shutil.copytree(whole, tmp_path / "run")
    config = tiny.config(**CNN, train__epochs=EPOCHS)
    best = workdir / "checkpoints" / "best"
    before, last = sorted(best.iterdir(), key=lambda path: int(path.name))
    damage(last)
    results = train.train(config, workdir)
    assert f"{last} is damaged and skipped" in capfd.readouterr().err
    assert results["epoch"] == int(before.name)
    accuracy = lines(workdir)[results["epoch"] - 1]["validation_class_mean_accuracy"]
    assert results["validation_class_mean_accuracy"] == accuracy
    damage(before)
    with pytest.raises(InputError, match="no checkpoint in .*/best can be read: move that dir"):
        train.train(config, workdir)
    shutil.move(best, tmp_path / "away")
    results = train.train(config, workdir)
    assert results["epoch"] == EPOCHS and results["validation_class_mean_accuracy"] is None


def test_fresh_starts_in_a_new_work_directory(start, command, whole, tmp_path):
    workdir = shutil.copytree(whole, tmp_path / "run")
    refused = start(*command, "--config.seed=1", f"--workdir={workdir}")
    assert refused.wait() == 2
    (line,) = messages(refused)
    assert "seed was 0, is 1" in line and "--fresh" in line
    run = start(*command, "--config.seed=1", f"--workdir={workdir}", "--fresh")
    assert run.wait() == 0 and f"--workdir={workdir}-2" in run.output(), run.output()
    assert_same(workdir, whole)
    assert json.loads((tmp_path / "run-2" / "config.json").read_text())["seed"] == 1


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MiB; skips if mounting is not allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no permission to mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize("foreseen", [True, False])
def test_a_full_disk_stops_a_run_and_space_lets_it_resume(
    start, command, whole, small_disk, foreseen
):
    """Full before the second epoch's checkpoint is written, or in the middle of it."""
    workdir, filler = small_disk / "run", small_disk / "filler"
    flags = (*command, f"--workdir={workdir}")
    hook = f"""
import os, shutil, sys
def watch(event, arguments):
    if event == "open" and "metrics.jsonl" in str(arguments[0]) and arguments[1] == "a":
        global lines
        lines += 1
        if lines == 2:
            disk = os.statvfs({str(small_disk)!r})
            with open({str(filler)!r}, "wb") as file:
                file.write(bytes(disk.f_bavail * disk.f_frsize - 60_000))
lines = 0
sys.addaudithook(watch)
"""
    if not foreseen:
        hook += "usage = shutil.disk_usage('/'); shutil.disk_usage = lambda path: usage"
    run = start(*flags, hook=hook)
    assert run.wait() == 2, run.output()
    assert len(messages(run)) == 1 or not foreseen  # else Orbax's threads print tracebacks
    (line,) = [line for line in messages(run) if line.startswith(f"error: {workdir}/")]
    assert "can't be written" in line and "the same command continues" in line
    assert (workdir / "checkpoints/latest/1").is_dir() and (workdir / "checkpoints/best/1").is_dir()
    filler.unlink()
    run = start(*flags)
    assert run.wait() == 0 and "after epoch 1 of" in run.output()
    assert "damaged" not in run.output()
    assert_same(workdir, whole)


def poison(monkeypatch, *names):
    """Makes the features of these clips NaN; of all clips without names."""
    read = SceneSplit.__getitem__

    def poisoned(self, index):
        found = read(self, index)
        bad = found["name"] in names or not names
        return found | {"log_mel": found["log_mel"] * np.nan} if bad else found

    monkeypatch.setattr(SceneSplit, "__getitem__", poisoned)


@pytest.mark.parametrize("resident", ["always", "never"])
def test_a_loss_that_is_not_finite_stops_or_is_skipped(tiny, tmp_path, monkeypatch, resident):
    config = tiny.config(**CNN, data__resident=resident)
    split = sources.open_dataset(config.data).split("train")
    epochs = [batches.train_indices(len(split), 8, seed=0, epoch=epoch) for epoch in (1, 2)]
    row = int(epochs[0][1][3])
    name = split[row]["name"]
    poison(monkeypatch, name)
    with pytest.raises(InputError, match="not finite at step 2 of epoch 1") as error:
        train.train(config, tmp_path / "stopped")
    for part in ("scene_loss=nan", "gradient_norm=nan", "learning_rate=", name, "skip_nonfinite"):
        assert part in str(error.value)
    assert not list((tmp_path / "stopped").glob("checkpoints/*/*"))

    config, workdir = config.replace(**{"train.skip_nonfinite": True}), tmp_path / "skipped"
    results = train.train(config, workdir)
    skipped = [int((epoch == row).any(axis=1).sum()) for epoch in epochs]
    assert [line["skipped"] for line in lines(workdir)] == skipped
    assert all(np.isfinite(line["loss"]) for line in lines(workdir))
    arrays, progress = checkpoints(workdir)["latest/2"]
    assert results["skipped_updates"] == progress["skipped"] == sum(skipped) > 0
    assert all(np.isfinite(x).all() for x in arrays.values() if x.dtype.kind == "f")

    poison(monkeypatch)
    with pytest.raises(InputError, match="loss is not finite at step 1 of epoch 1"):
        train.train(config, tmp_path / "all skipped")


def test_a_run_that_diverges_resumes_from_the_last_good_checkpoint(start, command, tmp_path):
    """Features are NaN from the second epoch on, and then good again."""
    workdir = tmp_path / "run"
    flags = (*command, "--config.data.resident=never")
    hook = f"""
import os
from ergl_jax.datasets.scene_split import SceneSplit
read = SceneSplit.__getitem__
def poison(self, index):
    found = read(self, index)
    if os.path.isdir({str(workdir / "checkpoints/latest/1")!r}):
        found["log_mel"] = found["log_mel"] * float("nan")
    return found
SceneSplit.__getitem__ = poison
"""
    run = start(*flags, f"--workdir={workdir}", hook=hook)
    assert run.wait() == 2, run.output()
    (line,) = messages(run)
    assert re.match(r"error: the loss is not finite at step \d+ of epoch 2 \(scene_loss=nan", line)
    kept = checkpoints(workdir)
    assert set(kept) == {"latest/1", "best/1"}
    assert all(progress["epoch"] == 1 for _, progress in kept.values())
    run = start(*flags, f"--workdir={workdir}")
    assert run.wait() == 0 and "after epoch 1 of" in run.output()
    undisturbed = start(*flags, f"--workdir={tmp_path}/whole")
    assert undisturbed.wait() == 0, undisturbed.output()
    assert_same(workdir, tmp_path / "whole")


def test_two_runs_of_a_seed_are_equal_bit_for_bit(tiny, tmp_path):
    """With augmentation and dropout, on as many devices as there are."""
    config = tiny.config(**CNN, augment__roll=True, augment__mixup_alpha=0.2, train__epochs=2)
    for name in ("one", "other"):
        train.train(config, tmp_path / name)
    assert_same(tmp_path / "one", tmp_path / "other")
