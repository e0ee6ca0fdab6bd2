"""Checkpoints come back as they went in."""

import jax
import numpy as np
import optax
import pytest

from ergl_jax.training.checkpoints import Checkpoints, Progress
from ergl_jax.training.steps import TrainState

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
