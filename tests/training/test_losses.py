"""Losses against closed forms and optax."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ergl_jax.models import Output
from ergl_jax.training import losses

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4)).astype(np.float32)
TARGETS = RNG.dirichlet(np.ones(4), 6).astype(np.float32)
EVENT_LOGITS = RNG.normal(size=(6, 3)).astype(np.float32)
EVENTS = RNG.random((6, 3), np.float32)


def test_scene_loss_of_whole_labels_is_the_mean_negative_log_probability():
    labels = np.array([0, 3, 1, 1, 2, 0])
    loss = losses.scene_loss(logits=LOGITS, targets=jnp.eye(4)[labels])
    probabilities = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(loss, -np.log(probabilities[range(6), labels]).mean(), rtol=1e-6)
    oracle = optax.softmax_cross_entropy_with_integer_labels(LOGITS, labels).mean()
    np.testing.assert_allclose(loss, oracle, rtol=1e-6)


def test_scene_loss_of_shared_labels_is_their_shares_of_the_loss():
    each = [losses.scene_loss(logits=LOGITS[:1], targets=jnp.eye(4)[c : c + 1]) for c in range(4)]
    mixed = losses.scene_loss(logits=LOGITS[:1], targets=TARGETS[:1])
    np.testing.assert_allclose(mixed, np.dot(TARGETS[0], each), rtol=1e-5)


def test_event_loss_is_the_mean_square_of_probability_errors():
    loss = losses.event_loss(logits=EVENT_LOGITS, targets=EVENTS)
    np.testing.assert_allclose(
        loss, np.mean((1 / (1 + np.exp(-EVENT_LOGITS)) - EVENTS) ** 2), rtol=1e-6
    )


def test_the_loss_is_the_sum_of_both():
    parts = losses.losses(Output(LOGITS, EVENT_LOGITS), scene=TARGETS, events=EVENTS)
    scene = losses.scene_loss(logits=LOGITS, targets=TARGETS)
    event = losses.event_loss(logits=EVENT_LOGITS, targets=EVENTS)
    assert parts == {"scene_loss": scene, "event_loss": event, "loss": scene + event}


def test_without_events_the_scene_loss_is_all():
    parts = losses.losses(Output(LOGITS), scene=TARGETS, events=EVENTS[:, :0])
    assert parts["event_loss"] == 0 and parts["loss"] == parts["scene_loss"] > 0


@pytest.mark.parametrize("loss", [losses.scene_loss, losses.event_loss])
def test_shapes_that_would_broadcast_are_refused(loss):
    with pytest.raises(AssertionError):
        loss(logits=LOGITS, targets=TARGETS[:, :1])
