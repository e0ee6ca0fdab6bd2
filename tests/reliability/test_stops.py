"""Runs that stop for a reason: a signal, damage, a full disk, numbers that are not finite."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import pytest
from compare_runs import assert_same, checkpoints, lines

from ergl_jax.datasets import batches, sources
from ergl_jax.datasets.builder import SceneSplit
from ergl_jax.errors import InputError
from ergl_jax.training import train

EPOCHS = 3
CNN = {"model__name": "cnn"}


@pytest.fixture(scope="module")
def command(tiny):
    """The arguments of the same command, but for its work directory."""
    flags = [f"--config.train.epochs={EPOCHS}", "--config.model.name=cnn"]
    return ("--config=configs/test.py", f"--config.data.data_dir={tiny.data_dir}", *flags)


@pytest.fixture(scope="module")
def whole(start, command, tmp_path_factory):
    """A run that nothing stopped."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    run = start(*command, f"--workdir={workdir}")
    assert run.wait() == 0, run.output()
    return workdir


def told(run):
    """The lines of a run that say more than that it starts."""
    return [line for line in run.last_lines() if not line.startswith(("train in", "ergl_jax"))]


def await_epoch(workdir, epoch, run):
    limit = time.monotonic() + 60
    while not (workdir / "checkpoints" / "latest" / str(epoch)).is_dir():
        assert time.monotonic() < limit and run.ends.empty(), run.output()
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_run_in_a_line(start, command, whole, tmp_path, number):
    workdir = tmp_path / "run"
    run = start(*command, f"--workdir={workdir}")
    await_epoch(workdir, 1, run)
    run.send(number)
    assert run.wait() == 128 + number, run.output()
    (line,) = told(run)
    if number == signal.SIGTERM:  # after the epoch that it came in
        epoch = lines(workdir)[-1]["epoch"]
        assert f"latest/{epoch}" in checkpoints(workdir)
        assert line.startswith(f"stopped by SIGTERM: epoch {epoch} of {EPOCHS} is saved in")
    else:
        assert line.endswith("interrupted; the same command goes on with what is done")
    run = start(*command, f"--workdir={workdir}")
    assert run.wait() == 0, run.output()
    assert_same(workdir, whole)


def garble(path):
    path.write_bytes(bytes(reversed(path.read_bytes())))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 10])


def spoil(state, damage=cut):
    """Damages all files of data: which of them are read depends on when they were filled."""
    files = [path for path in state.rglob("d/*") if path.is_file()]
    assert files
    for path in files:
        damage(path)


@pytest.mark.parametrize("damage", [garble, cut, os.unlink], ids=["garbage", "cut", "gone"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    whole, tiny, tmp_path, capfd, damage
):
    workdir = shutil.copytree(whole, tmp_path / "run")
    spoil(workdir / "checkpoints" / "latest" / str(EPOCHS) / "state", damage)
    train.train(tiny.config(**CNN, train__epochs=EPOCHS), workdir)
    out, err = capfd.readouterr()
    (line,) = [line for line in err.splitlines() if "damaged" in line]
    assert line.startswith(f"{workdir}/checkpoints/latest/{EPOCHS} is damaged and skipped: ")
    assert f"Going on after epoch {EPOCHS - 1} of {workdir}" in out
    assert [line["epoch"] for line in lines(workdir)] == list(range(1, EPOCHS + 1))
    found, expected = (checkpoints(each)[f"latest/{EPOCHS}"][0] for each in (workdir, whole))
    for name, array in expected.items():  # several devices here, one there
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-4)


def test_a_run_without_a_checkpoint_that_can_be_read_stops(start, command, whole, tmp_path):
    workdir = shutil.copytree(whole, tmp_path / "run")
    for each in (workdir / "checkpoints" / "latest").iterdir():
        spoil(each / "state")
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    run = start(*command, f"--workdir={workdir}")
    assert run.wait() == 2, run.output()
    *skipped, line = told(run)
    assert re.match(r"error: no checkpoint in \S*/latest can be read: .*--fresh", line)
    assert len(skipped) == 2  # latest keeps two
    assert all("is damaged and skipped" in each for each in skipped)
    after = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    assert before == after


def test_a_run_whose_checkpoints_are_gone_does_not_start_again(whole, tiny, tmp_path):
    workdir = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(InputError, match="run tells of training, and .* has no checkpoint"):
        train.train(tiny.config(**CNN, train__epochs=EPOCHS), workdir)
    assert lines(workdir) == lines(whole)
    first = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)[0]
    (workdir / "metrics.jsonl").write_text(first)
    with pytest.raises(InputError, match="run tells of training, and .* has no checkpoint"):
        train.train(tiny.config(**CNN, train__epochs=EPOCHS), workdir)


def test_a_damaged_best_gives_way_to_the_one_before_then_to_none(whole, tiny, tmp_path, capfd):
    """None is an error that loses nothing, and says how to have the last epoch in its place."""
    workdir, config = shutil.copytree(whole, tmp_path / "run"), tiny.config(**CNN)
    config.train.epochs = EPOCHS
    best = workdir / "checkpoints" / "best"
    before, last = sorted(best.iterdir(), key=lambda path: int(path.name))
    spoil(last / "state")
    results = train.train(config, workdir)
    assert f"{last} is damaged and skipped" in capfd.readouterr().err
    assert results["epoch"] == int(before.name)
    accuracy = lines(workdir)[results["epoch"] - 1]["validation_class_mean_accuracy"]
    assert results["validation_class_mean_accuracy"] == accuracy
    spoil(before / "state")
    with pytest.raises(InputError, match="no checkpoint in .*/best can be read: move that dir"):
        train.train(config, workdir)
    shutil.move(best, tmp_path / "away")
    results = train.train(config, workdir)
    assert results["epoch"] == EPOCHS and results["validation_class_mean_accuracy"] is None


def test_fresh_starts_beside_a_run(start, command, whole, tmp_path):
    workdir = shutil.copytree(whole, tmp_path / "run")
    refused = start(*command, "--config.seed=1", f"--workdir={workdir}")
    assert refused.wait() == 2
    (line,) = told(refused)
    assert "seed was 0, is 1" in line and "--fresh" in line
    run = start(*command, "--config.seed=1", f"--workdir={workdir}", "--fresh")
    assert run.wait() == 0, run.output()
    assert (
        f"{workdir} stays as it is; to go on with this run, --workdir={workdir}-2" in run.output()
    )
    assert_same(workdir, whole)
    assert json.loads((tmp_path / "run-2" / "config.json").read_text())["seed"] == 1


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MiB; skips where nobody may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize("foreseen", [True, False])
def test_a_full_disk_stops_a_run_and_room_lets_it_go_on(
    start, command, whole, small_disk, foreseen
):
    """Full as the second epoch is to be saved, or in the middle of its checkpoint."""
    workdir, filler = small_disk / "run", small_disk / "filler"
    flags = (*command, f"--workdir={workdir}")
    hook = f"""
import os, shutil, sys
def watch(event, arguments):
    if event == "open" and "metrics.jsonl" in str(arguments[0]) and arguments[1] == "a":
        global lines
        lines += 1
        if lines == 2:  # the second epoch is to be told
            room = os.statvfs({str(small_disk)!r})
            with open({str(filler)!r}, "wb") as file:
                file.write(bytes(room.f_bavail * room.f_frsize - 60_000))
lines = 0
sys.addaudithook(watch)
"""
    if not foreseen:
        hook += "usage = shutil.disk_usage('/'); shutil.disk_usage = lambda path: usage"
    run = start(*flags, hook=hook)
    assert run.wait() == 2, run.output()
    assert len(told(run)) == 1 or not foreseen  # Orbax's threads have their own to say
    (line,) = [line for line in told(run) if line.startswith(f"error: {workdir}/")]
    assert "can't be written" in line
    assert "the same command continues" in line
    assert (workdir / "checkpoints/latest/1").is_dir() and (workdir / "checkpoints/best/1").is_dir()
    filler.unlink()
    run = start(*flags)
    assert run.wait() == 0 and "Going on after epoch 1" in run.output()
    assert "damaged" not in run.output()
    assert_same(workdir, whole)


@pytest.fixture
def poisoned(tiny, monkeypatch):
    """A clip whose features are NaN: its name, and the steps of each of two epochs that have it."""
    split = sources.open_dataset(tiny.config().data).split("train")
    row = int(batches.train_indices(len(split), 8, seed=0, epoch=1)[1][3])
    name, read = split[row]["name"], SceneSplit.__getitem__

    def poison(self, index):
        found = read(self, index)
        return found | {"log_mel": found["log_mel"] * np.nan} if found["name"] == name else found

    monkeypatch.setattr(SceneSplit, "__getitem__", poison)
    epochs = [batches.train_indices(len(split), 8, seed=0, epoch=epoch) for epoch in (1, 2)]
    return name, [int((epoch == row).any(axis=1).sum()) for epoch in epochs]


@pytest.mark.parametrize("resident", ["always", "never"])
def test_what_is_not_finite_stops_with_the_clips_at_fault(tiny, tmp_path, poisoned, resident):
    config = tiny.config(**CNN, data__resident=resident)
    with pytest.raises(InputError) as error:
        train.train(config, tmp_path / "run")
    message = str(error.value)
    for part in ("scene_loss=nan", "gradient_norm=nan", "learning_rate=", "skip_nonfinite"):
        assert part in message
    assert "not finite at step 2 of epoch 1" in message
    clips = message.split("by the clips ")[1].split(". The last")[0].split(", ")
    assert poisoned[0] in clips and len(clips) == config.train.batch_size
    assert not list((tmp_path / "run").glob("checkpoints/*/*"))


def test_numbers_that_stop_being_finite_leave_the_last_good_checkpoint(start, command, tmp_path):
    """From the second epoch on; once they are mended the run goes on from there."""
    workdir = tmp_path / "run"
    flags = (*command, "--config.data.resident=never", f"--workdir={workdir}")
    hook = f"""
import os
from ergl_jax.datasets.builder import SceneSplit
read = SceneSplit.__getitem__
def poison(self, index):
    found = read(self, index)
    if os.path.isdir({str(workdir / "checkpoints/latest/1")!r}):
        found["log_mel"] = found["log_mel"] * float("nan")
    return found
SceneSplit.__getitem__ = poison
"""
    run = start(*flags, hook=hook)
    assert run.wait() == 2, run.output()
    (line,) = told(run)
    assert re.match(r"error: the loss is not finite at step \d+ of epoch 2 \(scene_loss=nan", line)
    kept = checkpoints(workdir)
    assert set(kept) == {"latest/1", "best/1"}
    for arrays, progress in kept.values():
        assert progress["epoch"] == 1
        assert all(np.isfinite(x).all() for x in arrays.values() if x.dtype.kind == "f")
    run = start(*flags)
    assert run.wait() == 0 and "Going on after epoch 1" in run.output()
    undisturbed = start(*flags[:-1], f"--workdir={tmp_path}/whole")
    assert undisturbed.wait() == 0, undisturbed.output()
    assert_same(workdir, tmp_path / "whole")


@pytest.mark.parametrize("resident", ["always", "never"])
def test_updates_that_are_not_finite_are_skipped_and_counted(tiny, tmp_path, poisoned, resident):
    config = tiny.config(**CNN, data__resident=resident, train__skip_nonfinite=True)
    results = train.train(config, tmp_path / "run")
    assert results["skipped_updates"] == sum(poisoned[1]) > 0
    epochs = lines(tmp_path / "run")
    assert [line["skipped"] for line in epochs] == poisoned[1]
    assert all(np.isfinite(line["loss"]) for line in epochs)
    arrays, progress = checkpoints(tmp_path / "run")["latest/2"]
    assert progress["skipped"] == sum(poisoned[1])
    assert all(np.isfinite(x).all() for x in arrays.values() if x.dtype.kind == "f")


def test_an_epoch_that_skips_all_its_updates_stops_the_run(tiny, tmp_path, monkeypatch):
    read = SceneSplit.__getitem__

    def poison(self, index):
        return (found := read(self, index)) | {"log_mel": found["log_mel"] * np.nan}

    monkeypatch.setattr(SceneSplit, "__getitem__", poison)
    config = tiny.config(**CNN, data__resident="never", train__skip_nonfinite=True)
    with pytest.raises(InputError, match="loss is not finite at step 1 of epoch 1"):
        train.train(config, tmp_path / "run")


def test_two_runs_of_a_seed_are_equal_bit_for_bit(tiny, tmp_path):
    """Augmentation and dropout on; on as many devices as there are."""
    config = tiny.config(**CNN, augment__roll=True, augment__mixup_alpha=0.2, train__epochs=2)
    for name in ("one", "other"):
        train.train(config, tmp_path / name)
    assert_same(tmp_path / "one", tmp_path / "other")
    assert jax.default_backend() == "cpu"
