"""A run that is killed (SIGKILL) any number of times ends as one that never was."""

import time

import numpy as np
import pytest
from compare_runs import assert_same, lines

pytestmark = pytest.mark.slow
EPOCHS = 5


@pytest.fixture(scope="module")
def command(tiny):
    """The arguments of the same command, without its work directory."""
    return ("--config=configs/test.py", f"--config.data.data_dir={tiny.data_dir}")


def finish(start, *arguments):
    """Runs to the end."""
    run = start(*arguments)
    assert run.wait() == 0 and "Traceback" not in run.output(), run.output()
    return run


def unfinished(workdir):
    """Checkpoints that still have their temporary name."""
    return list((workdir / "checkpoints").glob("*/*orbax-checkpoint-tmp*"))


def saved(workdir):
    """The last epoch in latest."""
    found = (workdir / "checkpoints" / "latest").glob("[0-9]*")
    return max((int(path.name) for path in found if path.name.isdigit()), default=0)


def test_killed_at_random_moments(start, command, tmp_path):
    """Once while starting, twice in training, once in writing a checkpoint, once at the end.

    A moment of training is a saved epoch and a fraction of the duration of the next one.
    """
    whole, workdir, rng = tmp_path / "whole", tmp_path / "run", np.random.default_rng(7)
    arguments = (*command, f"--config.train.epochs={EPOCHS}", f"--workdir={workdir}")
    finish(start, *arguments[:-1], f"--workdir={whole}")
    assert [line["epoch"] for line in lines(whole)] == list(range(1, EPOCHS + 1))
    times = sorted(path.stat().st_mtime for path in (whole / "checkpoints/latest").iterdir())
    moments = (np.arange(2) + rng.random(2)) * (EPOCHS - 1) / 2

    run = start(*arguments)
    time.sleep(rng.uniform(0.1, 2.0))
    run.kill()
    for number, moment in enumerate(moments):
        before = saved(workdir)
        run = start(*arguments)
        if before < int(moment):
            run.until(lambda epoch=int(moment): saved(workdir) >= epoch)
        elif before:  # a start from that epoch: wait until it trains the next one
            run.until(lambda run=run: "after epoch" in run.output())
        time.sleep(moment % 1 * (times[-1] - times[-2]))
        run.kill()
        if number == 0:
            while True:  # the checkpoint may get its name just before the kill
                run = start(*arguments)
                run.until(lambda run=run: "after epoch" in run.output())
                run.until(lambda: unfinished(workdir))
                run.kill()
                if unfinished(workdir):
                    break
    run = start(*arguments)
    run.until((workdir / "bundle").exists)
    run.kill()
    assert not (workdir / "results.json").exists()
    finish(start, *arguments)
    assert_same(workdir, whole)


# The process kills itself when it is about to do something to a file that matches a pattern.
KILL = """
import os, re, signal, sys
def watch(event, arguments):
    text = event + " " + " ".join(str(x) for x in arguments[:2])
    if re.search({pattern!r}, text):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
"""
RUN = {
    "before the line of an epoch": r"^open .*metrics\.jsonl a",
    "before the arrays of best": r"^os.mkdir .*best/2\..*tmp.*state",
    "before best is renamed": r"^os.rename .*best/2\..*tmp\S* \S*/best/2$",
    "between best and latest": r"^os.mkdir .*latest/2\..*tmp",
    "before latest is renamed": r"^os.rename .*latest/2\..*tmp\S* \S*/latest/2$",
    "while an older latest is deleted": r"^(os.remove|os.rmdir|shutil.rmtree) \S*latest/1(/\S*)? ",
    "while the bundle is written": r"^open \S*bundle.writing/config.json",
    "while predictions are written": r"^os.rename \S*predictions.csv\S*writing",
    "while results are written": r"^os.rename \S*results.json\S*writing",
}
TABLE = {
    "before a stage's checkpoint is renamed": r"^os.rename \S*network/\S*latest/1\.\S*tmp\S* ",
    "while a stage's bundle is written": r"^open \S*stages/network/bundle.writing/config.json",
    "while a stage's results are written": r"^os.rename \S*stages/network/results.json\S*writing",
    "before the line of the closed-form fit": r"^open \S*seed0/metrics\.jsonl a",
    "between its best and latest": r"^os.mkdir \S*seed0/checkpoints/latest/1\..*tmp",
    "before its checkpoint is renamed": r"^os.rename \S*seed0/\S*latest/1\.\S*tmp\S* \S*/1$",
    "while the results of a row are written": r"^os.rename \S*seed0/results.json\S*writing",
    "while the table is written": r"^os.rename \S*table.md\S*writing",
}


def kill_at_each(start, arguments, patterns, workdir):
    """Each attempt is killed at the next stage; the last one finishes."""
    for name, pattern in patterns.items():
        run = start(*arguments, f"--workdir={workdir}", hook=KILL.format(pattern=pattern))
        assert run.wait() == -9, f"not killed {name}: {run.output()}"
    finish(start, *arguments, f"--workdir={workdir}")


def test_a_run_killed_at_each_stage(start, command, tmp_path):
    arguments = (*command, "--config.train.epochs=3", "--config.model.name=cnn")
    finish(start, *arguments, f"--workdir={tmp_path}/whole")
    kill_at_each(start, arguments, RUN, tmp_path / "run")
    assert_same(tmp_path / "run", tmp_path / "whole")
    again = finish(start, *arguments, f"--workdir={tmp_path}/run")  # changes nothing
    assert "after epoch 3 of" in again.output()
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_a_table_of_stages_and_fits_killed_at_each(start, tmp_path):
    """Its row is MLTF's: a network trained by steps, then a support vector machine."""
    fields = [
        *(f"data.data_dir={tmp_path}/data", "data.clip_seconds=2.0", "data.num_events=3"),
        *("data.train_clips_per_scene=2", "data.test_clips_per_scene=1", "train.epochs=1"),
        *("train.batch_size=4", "model.encoder.width_divisor=32", "data.validation_fraction=0.3"),
        "optimizer.warmup_epochs=0.0",
    ]
    arguments = (
        *("--config=configs/tables.py:3", "--config.source=synthetic"),
        *("--config.rows=('mltf',)", f"--config.overrides={tuple(fields)}"),
    )
    finish(start, *arguments, f"--workdir={tmp_path}/whole")
    kill_at_each(start, arguments, TABLE, tmp_path / "run")
    for part in ("mltf/seed0", "mltf/seed0/stages/network"):
        assert_same(tmp_path / "run" / part, tmp_path / "whole" / part)
    names = [sorted(path.name for path in (tmp_path / each).iterdir()) for each in ("run", "whole")]
    assert names[0] == names[1] == ["mltf", "table.csv", "table.md"]
