"""Checkpoints are restored as they were saved, or the one before is."""

import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from ergl_jax.errors import InputError
from ergl_jax.training.checkpoints import Checkpoints, Progress
from ergl_jax.training.step import TrainState

ADAMW = optax.adamw(optax.linear_schedule(0.0, 1.0, 10))


def state(seed: int) -> TrainState:
    rng = np.random.default_rng(seed)
    params = {"dense": {"kernel": rng.normal(size=(3, 2)).astype(np.float32)}}
    _, opt_state = ADAMW.update(params, ADAMW.init(params), params)
    return TrainState(
        step=np.array(seed, np.int32),
        params=params,
        batch_stats={"mean": rng.normal(size=2).astype(np.float32)},
        opt_state=jax.device_get(opt_state),
    )


@pytest.fixture
def checkpoints(tmp_path):
    """Opens the same checkpoints anew with each call, as another process would."""
    opened = []

    def open_checkpoints():
        opened.append(Checkpoints(tmp_path))
        return opened[-1]

    yield open_checkpoints
    for each in opened:
        each.close()


def assert_same(found: TrainState, saved: TrainState):
    assert jax.tree.structure(found) == jax.tree.structure(saved)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(saved), strict=True):
        assert isinstance(a, np.ndarray) and a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_state_and_progress_are_restored(checkpoints):
    first = checkpoints()
    assert first.restore("latest", state(0)) is first.restore("best", state(0)) is None
    progress = Progress(epoch=3, best_epoch=2, best_accuracy=0.1 + 0.2, seconds=12.5)
    first.save("latest", state(3), progress)
    first.save("best", state(2), Progress(2, 2, 0.3, 8.0))
    for each in (first, checkpoints()):
        found, done = each.restore("latest", state(0))
        assert_same(found, state(3))
        assert done == progress
        assert_same(each.restore("best", state(0))[0], state(2))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    """Flips a bit of the middle byte."""
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_a_damaged_checkpoint_is_never_restored(checkpoints, tmp_path, capfd, damage):
    """Whichever file is damaged: the state is the saved one, or the one before, with a message."""
    for epoch in (1, 2):
        checkpoints().save("latest", state(epoch), Progress(epoch, best_accuracy=0.25))
    whole = tmp_path / "latest" / "2"
    kept, epochs = shutil.copytree(whole, tmp_path / "kept"), []
    for path in [path for path in whole.rglob("*") if path.is_file()]:
        damage(path)
        found, done = checkpoints().restore("latest", state(0))
        assert done == Progress(done.epoch, best_accuracy=0.25)
        assert_same(found, state(done.epoch))
        lines = [line for line in capfd.readouterr().err.splitlines() if "skipped" in line]
        assert len(lines) == 2 - done.epoch
        assert all("latest/2 is damaged and skipped" in line for line in lines)
        epochs.append(done.epoch)
        shutil.rmtree(whole)
        shutil.copytree(kept, whole)
    assert epochs.count(1) >= 4  # progress, and manifest, metadata and data of the state


def damage_progress(directory):
    (directory / "progress" / "metadata").write_text("{}")


def test_a_resumed_run_replaces_a_damaged_one_and_keeps_two(checkpoints, tmp_path):
    for epoch in (1, 2, 3):
        checkpoints().save("latest", state(epoch), Progress(epoch))
    damage_progress(tmp_path / "latest" / "3")
    (tmp_path / "latest" / "4.orbax-checkpoint-tmp").mkdir()  # of a run killed while writing
    again = checkpoints()
    assert again.restore("latest", state(0))[1].epoch == 2
    again.save("latest", state(7), Progress(3))
    assert_same(checkpoints().restore("latest", state(0))[0], state(7))
    assert {path.name for path in (tmp_path / "latest").iterdir()} == {"2", "3"}


@pytest.mark.parametrize(("name", "remedy"), [("latest", "--fresh"), ("best", "move that dir")])
def test_an_error_if_all_are_damaged(checkpoints, tmp_path, name, remedy):
    checkpoints().save(name, state(1), Progress(1))
    damage_progress(tmp_path / name / "1")
    with pytest.raises(InputError, match=f"no checkpoint in .*/{name} can be read: .*{remedy}"):
        checkpoints().restore(name, state(0))


def test_a_full_disk_is_an_input_error_and_keeps_the_last_one(checkpoints, monkeypatch):
    writer = checkpoints()
    writer.save("latest", state(1), Progress(1))
    usage = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(
        InputError, match="latest/2 can't be written: 0.0 MB are free .*; make space"
    ):
        writer.save("latest", state(2), Progress(2))
    assert checkpoints().restore("latest", state(0))[1].epoch == 1


def test_an_interrupt_while_writing_comes_after_it(checkpoints, monkeypatch, capfd):
    """Else Orbax's threads would print tracebacks."""
    writer = checkpoints()
    manager = writer._managers["latest"]
    save = manager.save

    def interrupted(*arguments, **more):
        signal.raise_signal(signal.SIGINT)
        return save(*arguments, **more)

    monkeypatch.setattr(manager, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        writer.save("latest", state(1), Progress(1))
    assert checkpoints().restore("latest", state(0))[1].epoch == 1
    assert "Traceback" not in capfd.readouterr().err
