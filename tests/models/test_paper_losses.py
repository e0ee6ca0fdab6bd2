"""The paper's losses against their closed forms and optax."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ergl_jax.models import Output
from ergl_jax.models import losses as paper

RNG = np.random.default_rng(0)
LOGITS, EVENT_LOGITS = np.float32(RNG.normal(size=(6, 4))), np.float32(RNG.normal(size=(6, 3)))
TARGETS = RNG.dirichlet(np.ones(4), 6).astype(np.float32)
EVENTS = RNG.random((6, 3), np.float32)


def test_scene_loss_is_the_cross_entropy():
    loss = paper.scene_loss(logits=LOGITS, targets=TARGETS)
    np.testing.assert_array_equal(loss, optax.softmax_cross_entropy(LOGITS, TARGETS).mean())
    labels = np.array([0, 3, 1, 1, 2, 0])
    loss = paper.scene_loss(logits=LOGITS, targets=jnp.eye(4)[labels])
    probabilities = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(loss, -np.log(probabilities[range(6), labels]).mean(), rtol=1e-6)


def test_event_loss_is_the_mean_square_of_probability_errors():
    loss = paper.event_loss(logits=EVENT_LOGITS, targets=EVENTS)
    want = np.mean((1 / (1 + np.exp(-EVENT_LOGITS)) - EVENTS) ** 2)
    np.testing.assert_allclose(loss, want, rtol=1e-6)


def test_binary_loss_is_the_binary_cross_entropy():
    loss = paper.binary_loss(logits=EVENT_LOGITS, targets=EVENTS)
    want = optax.sigmoid_binary_cross_entropy(EVENT_LOGITS, EVENTS).mean()
    np.testing.assert_array_equal(loss, want)


def test_the_loss_is_the_sum_of_both():
    parts = paper.losses(Output(LOGITS, EVENT_LOGITS), scene=TARGETS, events=EVENTS)
    scene = paper.scene_loss(logits=LOGITS, targets=TARGETS)
    event = paper.event_loss(logits=EVENT_LOGITS, targets=EVENTS)
    assert parts == {"scene_loss": scene, "event_loss": event, "loss": scene + event}
    parts = paper.losses(Output(LOGITS), scene=TARGETS, events=EVENTS[:, :0])
    assert parts["event_loss"] == 0 and parts["loss"] == scene


@pytest.mark.parametrize("loss", [paper.scene_loss, paper.event_loss, paper.binary_loss])
def test_shapes_that_would_broadcast_are_an_error(loss):
    with pytest.raises(ValueError, match=r"logits are \(6, 4\), targets \(6, 1\)"):
        loss(logits=LOGITS, targets=TARGETS[:, :1])
