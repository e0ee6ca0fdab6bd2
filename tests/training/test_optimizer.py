"""AdamW against its formula as torch.optim.AdamW has it; schedules at their corners."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from configs import ergl
from ergl_jax.config import Config
from ergl_jax.training import optimizer


def settings(**fields):
    config = Config.from_dict(ergl.get_config().to_dict()).optimizer
    return dataclasses.replace(config, **fields)


def torch_adamw(p, grads, *, lr, weight_decay, beta1=0.9, beta2=0.999, eps=1e-8):
    """torch.optim.AdamW's steps, in float64."""
    m = v = 0.0
    for t, (g, rate) in enumerate(zip(grads, lr, strict=True), start=1):
        p = p * (1 - rate * weight_decay)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        p = p - rate * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
    return p


@pytest.mark.parametrize(
    "fields",
    [
        {},  # the paper's: a constant 1e-3 and a decay of 1e-2
        {"learning_rate": 0.1, "weight_decay": 0.5, "schedule": "cosine", "warmup_epochs": 1.0},
    ],
)
def test_adamw_is_pytorchs_on_every_parameter(fields):
    config, steps = settings(**fields), 8
    rng = np.random.default_rng(0)
    params = {
        "kernel": rng.normal(size=(3, 2)),
        "bias": rng.normal(size=2),
        "scale": np.ones(2),
        "unused": np.ones(2),  # no gradient: decay alone moves it
    }
    grads = {name: rng.normal(size=(steps, *p.shape)) for name, p in params.items()}
    grads["unused"] *= 0
    adamw = optimizer.adamw(config, steps_per_epoch=2, epochs=4)
    rate = optimizer.learning_rate(config, steps_per_epoch=2, epochs=4)
    mine = jax.tree.map(np.float32, params)
    state = adamw.init(mine)
    for step in range(steps):
        gradient = {name: np.float32(g[step]) for name, g in grads.items()}
        updates, state = adamw.update(gradient, state, mine)
        mine = optax.apply_updates(mine, updates)
    for name, p in params.items():
        expected = torch_adamw(
            p,
            grads[name],
            lr=[float(rate(step)) for step in range(steps)],
            weight_decay=config.weight_decay,
        )
        assert np.abs(expected - p).max() > 5e-5  # it went somewhere
        np.testing.assert_allclose(
            mine[name], expected, rtol=2e-6, atol=5e-5 * config.learning_rate, err_msg=name
        )


def test_the_papers_rate_and_decay():
    config = settings()
    rate = optimizer.learning_rate(config, steps_per_epoch=10, epochs=300)
    assert rate(0) == rate(2999) == 1e-3
    assert (config.weight_decay, config.schedule, config.warmup_epochs) == (1e-2, "constant", 0)


def test_warm_up_rises_in_a_line_then_holds():
    config = settings(learning_rate=0.4, warmup_epochs=1.5)
    rate = optimizer.learning_rate(config, steps_per_epoch=4, epochs=3)
    found = [float(rate(step)) for step in range(12)]
    np.testing.assert_allclose(found, [0.4 * min(step / 6, 1) for step in range(12)], rtol=1e-6)


@pytest.mark.parametrize("warmup", [0, 2])
def test_cosine_falls_to_zero_after_the_last_step(warmup):
    config = settings(learning_rate=0.4, schedule="cosine", warmup_epochs=warmup)
    rate = optimizer.learning_rate(config, steps_per_epoch=5, epochs=10)
    start = 5 * warmup
    after = np.arange(start, 51)
    expected = 0.2 * (1 + np.cos(np.pi * (after - start) / (50 - start)))
    np.testing.assert_allclose([float(rate(step)) for step in after], expected, atol=1e-7)
    assert float(rate(49)) > 0 == float(rate(50))


def test_a_warm_up_of_nearly_all_epochs_leaves_a_step():
    config = settings(schedule="cosine", warmup_epochs=0.9)
    rate = optimizer.learning_rate(config, steps_per_epoch=2, epochs=1)
    assert float(rate(1)) == pytest.approx(config.learning_rate)


def test_what_is_frozen_stays_and_the_rest_is_as_without():
    rng = np.random.default_rng(0)
    params = {
        name: {"kernel": np.float32(rng.normal(size=(3, 2))), "bias": np.zeros(2, np.float32)}
        for name in ("encoder", "fc1", "scene")
    }
    config, length = settings(weight_decay=0.5), {"steps_per_epoch": 4, "epochs": 2}
    plain = optimizer.adamw(config, **length)
    part = optimizer.adamw(config, **length, frozen=("encoder", "fc1", "not there"))
    found, expected = params, params
    states = part.init(params), plain.init(params)
    for _ in range(3):
        grads = jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape)), params)
        updates, first = part.update(grads, states[0], found)
        others, second = plain.update(grads, states[1], expected)
        states = first, second
        found, expected = (
            optax.apply_updates(found, updates),
            optax.apply_updates(expected, others),
        )
    for name in ("encoder", "fc1"):
        jax.tree.map(np.testing.assert_array_equal, found[name], params[name])
    jax.tree.map(np.testing.assert_array_equal, found["scene"], expected["scene"])
    assert np.abs(found["scene"]["kernel"] - params["scene"]["kernel"]).min() > 0
