"""Losses against closed forms and optax."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ergl_jax.errors import InputError
from ergl_jax.models import Output
from ergl_jax.training import losses
from ergl_jax.training.losses import LOSSES, RELATED, Relations, make_loss

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4)).astype(np.float32)
TARGETS = RNG.dirichlet(np.ones(4), 6).astype(np.float32)
EVENT_LOGITS = RNG.normal(size=(6, 3)).astype(np.float32)
EVENTS = RNG.random((6, 3), np.float32)
BY_SCENE = RNG.normal(size=(6, 4, 3)).astype(np.float32)
OUTPUT = Output(LOGITS, EVENT_LOGITS, event_logits_by_scene=BY_SCENE)
RELATIONS = Relations(RNG.random((4, 3), np.float32), RNG.random((4, 3)) > 0.5)
NAMES = [*LOSSES, *RELATED]


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


def bce(logits, labels):
    """In NumPy, by its definition."""
    p = 1 / (1 + np.exp(-np.float64(logits)))
    return -(labels * np.log(p) + (1 - labels) * np.log(1 - p))


def parts_of(name, scene=TARGETS):
    return make_loss(name, RELATIONS)(OUTPUT, scene=scene, events=EVENTS)


@pytest.mark.parametrize("name", NAMES)
def test_parts_are_finite_scalars_and_add_up(name):
    parts = parts_of(name)
    related = {"relation_loss"} if name.startswith("rgasc") else set()
    assert set(parts) == {"loss", "scene_loss", "event_loss"} | related
    assert all(jnp.shape(part) == () and np.isfinite(part) for part in parts.values())
    if name == "joint":  # weighted by how many outputs each part has: four scenes, three events
        total = (4 * parts["scene_loss"] + 3 * parts["event_loss"]) / 7
    else:
        total = sum(part for key, part in parts.items() if key != "loss")
    np.testing.assert_allclose(parts["loss"], total, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_mixed_up_clip_has_its_share_of_each_scenes_loss(name):
    first, second = np.eye(4, dtype=np.float32)[[[0, 1, 2, 3, 0, 1], [2, 3, 0, 1, 1, 2]]]
    mixed = parts_of(name, 0.3 * first + 0.7 * second)
    for key, part in mixed.items():
        share = 0.3 * parts_of(name, first)[key] + 0.7 * parts_of(name, second)[key]
        np.testing.assert_allclose(part, share, rtol=1e-5)


def test_ergl_is_the_paper():
    parts = parts_of("ergl")
    assert parts == losses.losses(OUTPUT, scene=TARGETS, events=EVENTS)


@pytest.mark.parametrize("name", ["bce", "events"])
def test_binary_cross_entropy_of_events(name):
    parts = parts_of(name)
    np.testing.assert_allclose(parts["event_loss"], bce(EVENT_LOGITS, EVENTS).mean(), rtol=1e-6)
    scene = losses.scene_loss(logits=LOGITS, targets=TARGETS)
    assert parts["scene_loss"] == (scene if name == "bce" else 0)


def test_bce_without_events_is_the_scene_loss():
    parts = make_loss("bce", None)(Output(LOGITS), scene=TARGETS, events=EVENTS[:, :0])
    assert parts["event_loss"] == 0 and parts["loss"] == parts["scene_loss"] > 0


def test_the_scene_alone():
    parts = parts_of("scene")
    assert parts["loss"] == losses.scene_loss(logits=LOGITS, targets=TARGETS)
    assert parts["event_loss"] == 0


def test_nll_takes_logits_as_they_are():
    np.testing.assert_allclose(
        parts_of("nll")["loss"], -(TARGETS * LOGITS).sum(axis=1).mean(), rtol=1e-5
    )
    # Of true log-probabilities it is the cross entropy, which it otherwise isn't.
    normalised = Output(LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True)))
    nll = make_loss("nll", None)(normalised, scene=TARGETS, events=EVENTS)["loss"]
    cross_entropy = losses.scene_loss(logits=LOGITS, targets=TARGETS)
    np.testing.assert_allclose(nll, cross_entropy, rtol=1e-5)
    assert abs(parts_of("nll")["loss"] - cross_entropy) > 0.1


def test_joint_is_one_mean_over_all_outputs():
    both = bce(np.hstack([LOGITS, EVENT_LOGITS]), np.hstack([TARGETS, EVENTS]))
    np.testing.assert_allclose(parts_of("joint")["loss"], both.mean(), rtol=1e-6)


def test_conditional_averages_over_the_wrong_scenes():
    labels = np.array([0, 3, 1, 1, 2, 0])
    true, wrong = [], []
    for clip, scene in enumerate(labels):
        true.append(bce(BY_SCENE[clip, scene], EVENTS[clip]).mean())
        for other in set(range(4)) - {scene}:
            possible = EVENTS[clip] * RELATIONS.present[other]
            wrong.append(bce(BY_SCENE[clip, other], possible).mean())
    predicted = bce(EVENT_LOGITS, EVENTS).mean()
    parts = parts_of("conditional", jnp.eye(4)[labels])
    expected = np.mean(true) + np.mean(wrong) + predicted
    np.testing.assert_allclose(parts["event_loss"], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["rgasc_log", "rgasc_prob"])
def test_rgasc_infers_each_task_from_the_other(name):
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    guess = np.log(p) if name == "rgasc_log" else p
    q, r = 1 / (1 + np.exp(-EVENT_LOGITS)), RELATIONS.probability
    scene = np.array([[sum(q[b] * r[s]) for s in range(4)] for b in range(6)])
    event = np.array([[sum(guess[b] * r[:, k]) for k in range(3)] for b in range(6)])
    parts = parts_of(name)
    expected = np.mean((scene - guess) ** 2) + np.mean((event - q) ** 2)
    np.testing.assert_allclose(parts["relation_loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(parts["event_loss"], bce(EVENT_LOGITS, EVENTS).mean(), rtol=1e-6)


def test_relations_are_those_of_each_scenes_clips():
    scene = np.array([2, 0, 2, 0, 2])
    events = np.float32([[0.2, 0.0], [0.9, 0.1], [0.6, 0.0], [0.5, 0.3], [0.1, 0.0]])
    found = losses.relations(scene, events, 3, threshold=0.5)
    np.testing.assert_allclose(found.probability, [[0.7, 0.2], [0, 0], [0.3, 0]], rtol=1e-6)
    assert found.probability.dtype == np.float32 and found.present.dtype == bool
    assert found.present.tolist() == [[True, False], [False, False], [True, False]]
    # A label at the threshold is there.
    assert losses.relations(scene, events, 3, threshold=0.3).present[0].tolist() == [True, True]


def test_an_unknown_loss_is_named():
    with pytest.raises(InputError, match="train.loss='mse' is not one of: ergl, bce, nll, scene"):
        make_loss("mse", None)


@pytest.mark.parametrize("name", RELATED)
def test_relations_can_not_be_left_out(name):
    with pytest.raises(ValueError, match=f"{name} needs the relations"):
        make_loss(name, None)
