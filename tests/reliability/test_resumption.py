"""A run that is killed, as often as you like, ends as one that never was.

The kills are SIGKILL, to a process that runs run.py; the oracle is a run that nobody disturbs.
"""

import re
import time

import numpy as np
import pytest
from compare_runs import assert_same, lines

EPOCHS = 8
KILLS = 10


@pytest.fixture(scope="module")
def command(tiny):
    """The arguments of the same command, but for its work directory."""
    return ("--config=configs/test.py", f"--config.data.data_dir={tiny.data_dir}")


@pytest.fixture(scope="module")
def whole(start, command, tmp_path_factory):
    """A run never killed: its work directory, and the seconds of an epoch of it."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    run = start(*command, f"--config.train.epochs={EPOCHS}", f"--workdir={workdir}")
    assert run.wait() == 0, run.output()
    assert [line["epoch"] for line in lines(workdir)] == list(range(1, EPOCHS + 1))
    saved = sorted(path.stat().st_mtime for path in (workdir / "checkpoints/latest").iterdir())
    return workdir, saved[-1] - saved[-2]


def until(condition, run):
    """Waits for a condition in the files of a run, as closely as it can be watched."""
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit and run.ends.empty(), run.output()
        time.sleep(0.0005)


def being_written(workdir):
    """Checkpoints that have not got their name yet."""
    return list((workdir / "checkpoints").glob("*/*orbax-checkpoint-tmp*"))


def saved(workdir):
    """The last epoch in latest."""
    found = (workdir / "checkpoints" / "latest").glob("[0-9]*")
    return max((int(path.name) for path in found if path.name.isdigit()), default=0)


def test_killed_at_ten_random_moments(start, command, whole, tmp_path):
    """One while it starts, seven spread over training, one in a checkpoint's write, one at the end.

    A moment of training is an epoch that is saved and a part of the time that the next one takes.
    """
    undisturbed, seconds = whole
    workdir, rng = tmp_path / "run", np.random.default_rng(7)
    arguments = (*command, f"--config.train.epochs={EPOCHS}", f"--workdir={workdir}")
    moments = (np.arange(7) + rng.random(7)) * (EPOCHS - 1) / 7
    story = []

    def kill(run, moment):
        run.kill()
        story.append(f"{moment}, with epoch {saved(workdir)} saved")

    run = start(*arguments)
    time.sleep(pause := rng.uniform(0.1, 2.0))
    kill(run, f"{pause:.2f} s from its start")
    for number, moment in enumerate(moments):
        before = saved(workdir)
        run = start(*arguments)
        if before < int(moment):
            until(lambda epoch=int(moment): saved(workdir) >= epoch, run)
        elif before:
            # Not at once: a start that finds its epoch saved has the way to the next before it.
            until(lambda run=run: "Going on" in run.output(), run)
        time.sleep(moment % 1 * seconds)
        kill(run, f"at {moment:.2f} epochs")
        if number == 3:  # in the middle of a write: some of it is there, and not yet its name
            left = set()
            while not left:  # what was written may have got its name before the kill
                run = start(*arguments)
                until(
                    lambda run=run: "Going on" in run.output(), run
                )  # and what a kill left is gone
                until(lambda: being_written(workdir), run)
                kill(run, "in the write of a checkpoint")
                left = being_written(workdir)
    run = start(*arguments)
    until((workdir / "bundle").exists, run)
    time.sleep(rng.uniform(0, 0.5))
    kill(run, "with a bundle and no results")
    print(*story, sep="\n")
    assert len(story) >= KILLS and not (workdir / "results.json").exists()
    run = start(*arguments)
    assert run.wait() == 0, run.output()
    assert "Traceback" not in run.output()
    assert_same(workdir, undisturbed)


# A kill by the process itself, as it is about to do something to a file that a pattern finds.
SUICIDE = """
import os, re, signal, sys
def watch(event, arguments):
    text = event + " " + " ".join(str(x) for x in arguments[:2])
    if re.search({pattern!r}, text):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
"""
STAGES = {
    "before the line of an epoch": r"^open .*metrics\.jsonl a",
    "in best, before its arrays": r"^os.mkdir .*best/2\..*tmp.*state",
    "in best, all but its name": r"^os.rename .*best/2\..*tmp\S* \S*/best/2$",
    "between best and latest": r"^os.mkdir .*latest/2\..*tmp",
    "in latest, all but its name": r"^os.rename .*latest/2\..*tmp\S* \S*/latest/2$",
    "as an older latest is deleted": r"^(os.remove|os.rmdir|shutil.rmtree) \S*latest/1(/\S*)? ",
    "as the bundle is written": r"^open \S*bundle.writing/config.json",
    "as predictions are written": r"^os.rename \S*predictions.csv\S*writing",
    "as results are written": r"^os.rename \S*results.json\S*writing",
}


OF_A_TABLE = {
    "as a stage is saved, all but its name": r"^os.rename \S*network/\S*latest/1\.\S*tmp\S* ",
    "as a stage's bundle is written": r"^open \S*stages/network/bundle.writing/config.json",
    "as a stage's results are written": r"^os.rename \S*stages/network/results.json\S*writing",
    "before the line of what is fitted at once": r"^open \S*seed0/metrics\.jsonl a",
    "between best and latest of that": r"^os.mkdir \S*seed0/checkpoints/latest/1\..*tmp",
    "in that checkpoint, all but its name": r"^os.rename \S*seed0/\S*latest/1\.\S*tmp\S* \S*/1$",
    "as the results of a row are written": r"^os.rename \S*seed0/results.json\S*writing",
    "as the table is written": r"^os.rename \S*table.md\S*writing",
}


def test_a_table_of_stages_and_fits_killed_at_each(start, tmp_path):
    """Its row is MLTF's: a network by steps, then a support vector machine at once."""
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
    run = start(*arguments, f"--workdir={tmp_path}/whole")
    assert run.wait() == 0, run.output()
    for name, pattern in OF_A_TABLE.items():
        run = start(*arguments, f"--workdir={tmp_path}/run", hook=SUICIDE.format(pattern=pattern))
        assert run.wait() == -9, f"not killed {name}: {run.output()}"
    run = start(*arguments, f"--workdir={tmp_path}/run")
    assert run.wait() == 0, run.output()
    assert "Traceback" not in run.output()
    for part in ("mltf/seed0", "mltf/seed0/stages/network"):
        assert_same(tmp_path / "run" / part, tmp_path / "whole" / part)
    names = [sorted(path.name for path in (tmp_path / each).iterdir()) for each in ("run", "whole")]
    assert names[0] == names[1] == ["mltf", "table.csv", "table.md"]


def test_killed_at_each_stage_of_a_run(start, command, tmp_path):
    """Each attempt dies at the next stage, by the Python that does it."""
    arguments = (*command, "--config.train.epochs=3", "--config.model.name=cnn")
    run = start(*arguments, f"--workdir={tmp_path}/whole")
    assert run.wait() == 0, run.output()
    for name, pattern in STAGES.items():
        hook = SUICIDE.format(pattern=pattern)
        run = start(*arguments, f"--workdir={tmp_path}/run", hook=hook)
        assert run.wait() == -9, f"not killed {name}: {run.output()}"
        print(f"killed {name}, with epoch {saved(tmp_path / 'run')} saved")
    run = start(*arguments, f"--workdir={tmp_path}/run")
    assert run.wait() == 0, run.output()
    assert "Traceback" not in run.output()
    assert_same(tmp_path / "run", tmp_path / "whole")
    again = start(*arguments, f"--workdir={tmp_path}/run")  # done again, it changes nothing
    assert again.wait() == 0 and re.search("Going on after epoch 3", again.output())
    assert_same(tmp_path / "run", tmp_path / "whole")
