"""A step that is not finite: found on every way through an epoch, skipped where that is wanted."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_step import Toy, examples

from configs import test as test_config
from ergl_jax.models import Output
from ergl_jax.training.augmentation import make_augment
from ergl_jax.training.step import Trainer, init_state, replicate, stack, unreplicate

BAD = 2  # the step that has the spoilt clip
INDICES = np.arange(32, dtype=np.int32).reshape(4, 8)


def spoil(value):
    """A split whose clip of step BAD has a log-mel of `value`."""
    data = examples(16, 6)
    data["log_mel"][INDICES[BAD, 3]] = value
    return data


class Root(Toy):
    """Has a finite loss and a gradient that is not: the slope of a root at 0."""

    @nn.compact
    def __call__(self, log_mel, *, train):
        output = Toy(self.axis_name)(log_mel, train=train)
        offset = self.param("offset", nn.initializers.zeros, (10,))
        return Output(output.scene_logits + jnp.sqrt(offset), output.event_logits)


def trainer(model=None, **options):
    config = test_config.get_config().augment
    return Trainer(
        model or Toy(), optax.adam(1e-2), make_augment(config), num_scenes=10, seed=0, **options
    )


def start(model=None):
    return jax.device_get(init_state(model or Toy(), optax.adam(1e-2), seed=0, shape=(16, 6)))


def resident(mechanics, state, data, indices):
    return mechanics.epoch(state, replicate(data), indices, scan=False)


def scanned(mechanics, state, data, indices):
    return mechanics.epoch(state, replicate(data), indices, scan=True)


def streamed(mechanics, state, data, indices):
    each = []
    for chosen in indices:
        state, metrics = mechanics.step(state, {name: x[chosen] for name, x in data.items()})
        each.append(metrics)
    return state, stack(each)


def train(way, mechanics, data, indices, state=None):
    state, metrics = way(mechanics, replicate(state or start()), data, indices)
    return unreplicate(state), metrics


@pytest.fixture(scope="module")
def skipping():
    return trainer(skip_nonfinite=True)


WAYS = pytest.mark.parametrize("way", [resident, scanned, streamed])


@WAYS
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e25])
def test_a_skipped_step_leaves_all_but_its_number(way, value, skipping):
    """1e25: its square is too large for BatchNorm's variance, and what is divided by it is 0."""
    data = spoil(value)
    before, _ = train(way, skipping, data, INDICES[:BAD])
    after, metrics = train(way, skipping, data, INDICES[: BAD + 1])
    np.testing.assert_array_equal(metrics["finite"], [1, 1, 0])
    assert after.step == before.step + 1 == BAD + 1
    jax.tree.map(np.testing.assert_array_equal, after.replace(step=before.step), before)
    whole, metrics = train(way, skipping, data, INDICES)
    np.testing.assert_array_equal(metrics["finite"], [1, 1, 0, 1])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(whole))
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (whole, after)), strict=True))


@WAYS
def test_without_skipping_it_is_reported(way):
    state, metrics = train(way, trainer(), spoil(np.nan), INDICES)
    np.testing.assert_array_equal(metrics["finite"], [1, 1, 0, 0])
    assert np.isfinite(metrics["loss"][:BAD]).all() and np.isnan(metrics["loss"][BAD])
    assert np.isfinite(metrics["gradient_norm"][:BAD]).all()


@WAYS
def test_a_healthy_run_skips_nothing_and_is_the_same(way, skipping):
    states = [train(way, each, examples(16, 6), INDICES) for each in (trainer(), skipping)]
    for state, metrics in states:
        assert metrics["finite"].all() and state.step == 4
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *states)


@WAYS
def test_a_gradient_may_be_at_fault_alone(way):
    first = start(Root())
    mechanics = trainer(Root(), skip_nonfinite=True)
    after, metrics = train(way, mechanics, examples(16, 6), INDICES[:1], first)
    assert np.isfinite(metrics["loss"]).all() and not np.isfinite(metrics["gradient_norm"]).any()
    np.testing.assert_array_equal(metrics["finite"], [0])
    jax.tree.map(np.testing.assert_array_equal, after.replace(step=first.step), first)
