"""Checkpoints come back as they went in."""

import os
import shutil

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
    opened = []

    def open_checkpoints():
        opened.append(Checkpoints(tmp_path / "checkpoints"))
        return opened[-1]

    yield open_checkpoints
    for each in opened:
        each.close()


def assert_same(found: TrainState, saved: TrainState):
    assert jax.tree.structure(found) == jax.tree.structure(saved)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(saved), strict=True):
        assert isinstance(a, np.ndarray) and a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_there_is_nothing_at_first(checkpoints):
    assert checkpoints().restore("latest", state(0)) is None
    assert checkpoints().restore("best", state(0)) is None


def test_state_and_progress_come_back_in_another_process(checkpoints):
    first = checkpoints()
    progress = Progress(epoch=3, best_epoch=2, best_accuracy=0.1 + 0.2, seconds=12.5)
    first.save("latest", state(3), progress)
    first.save("best", state(2), Progress(2, 2, 0.3, 8.0))
    for each in (first, checkpoints()):
        found, done = each.restore("latest", state(0))
        assert_same(found, state(3))
        assert done == progress
        found, done = each.restore("best", state(0))
        assert_same(found, state(2))
        assert done == Progress(2, 2, 0.3, 8.0)


def test_only_the_newest_two_are_kept(checkpoints, tmp_path):
    first = checkpoints()
    for epoch in (1, 2, 3, 4):
        first.save("latest", state(epoch), Progress(epoch))
    found = {path.name for path in (tmp_path / "checkpoints" / "latest").iterdir()}
    assert found == {"3", "4"}
    assert first.restore("latest", state(0))[1].epoch == 4


def test_a_best_that_was_saved_before_a_stop_can_be_saved_again(checkpoints):
    """Best is saved first: a run stopped before its latest repeats the epoch and comes by again."""
    checkpoints().save("best", state(2), Progress(2, 2, 0.5))
    again = checkpoints()
    again.save("best", state(2), Progress(2, 2, 0.5))
    again.save("best", state(3), Progress(3, 3, 0.6))
    assert_same(again.restore("best", state(0))[0], state(3))


def test_a_checkpoint_cut_short_is_passed_over(checkpoints, tmp_path):
    checkpoints().save("latest", state(1), Progress(1))
    (tmp_path / "checkpoints" / "latest" / "2.orbax-checkpoint-tmp").mkdir()
    assert checkpoints().restore("latest", state(0))[1].epoch == 1


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    """A bit of its middle byte."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def garble(data: bytes) -> bytes:
    return np.random.default_rng(0).bytes(len(data))


@pytest.mark.parametrize("damage", [cut, flip, garble, None])
def test_no_damage_to_a_file_comes_back_as_a_state(checkpoints, tmp_path, capfd, damage):
    """Whichever file it is: what is read is what was saved, or the one before and a line."""
    writer = checkpoints()
    for epoch in (1, 2):
        writer.save("latest", state(epoch), Progress(epoch, best_accuracy=0.25))
    whole, outcomes = tmp_path / "checkpoints", []
    shutil.copytree(whole, tmp_path / "kept")
    files = [path for path in (whole / "latest" / "2").rglob("*") if path.is_file()]
    for path in files:
        content = path.read_bytes()
        if damage and content:
            path.write_bytes(damage(content))
        elif damage is None:
            os.unlink(path)
        found, done = checkpoints().restore("latest", state(0))
        assert done == Progress(done.epoch, best_accuracy=0.25)
        assert_same(found, state(done.epoch))
        told = [line for line in capfd.readouterr().err.splitlines() if "passed over" in line]
        assert len(told) == 2 - done.epoch and all("latest/2 is damaged" in line for line in told)
        outcomes.append(done.epoch)
        shutil.rmtree(whole)
        shutil.copytree(tmp_path / "kept", whole)
    print(f"{outcomes.count(1)} of {len(files)} files were missed")
    assert outcomes.count(1) >= 4  # progress, and manifest, metadata and data of the state


@pytest.mark.parametrize("name", ["latest", "best"])
def test_with_none_that_can_be_read_there_is_an_error(checkpoints, tmp_path, name):
    for epoch in (1, 2):
        checkpoints().save(name, state(epoch), Progress(epoch))
        (tmp_path / "checkpoints" / name / str(epoch) / "progress" / "metadata").write_text("{}")
    advice = {"latest": "--fresh", "best": "move that directory away"}[name]
    with pytest.raises(InputError, match=f"no checkpoint in .*/{name} can be read: .*{advice}"):
        checkpoints().restore(name, state(0))


def test_a_run_that_went_back_writes_over_what_is_damaged(checkpoints, tmp_path):
    writer = checkpoints()
    for epoch in (1, 2, 3):
        writer.save("latest", state(epoch), Progress(epoch))
    (tmp_path / "checkpoints" / "latest" / "3" / "progress" / "metadata").write_text("{}")
    again = checkpoints()
    assert again.restore("latest", state(0))[1].epoch == 2
    again.save("latest", state(7), Progress(3))
    found, done = checkpoints().restore("latest", state(0))
    assert_same(found, state(7))
    assert done.epoch == 3


def test_a_disk_without_room_is_a_line(checkpoints, monkeypatch):
    writer = checkpoints()
    writer.save("latest", state(1), Progress(1))
    usage = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="latest can't be written to: .*make space, and the same"):
        writer.save("latest", state(2), Progress(2))
    assert checkpoints().restore("latest", state(0))[1].epoch == 1
