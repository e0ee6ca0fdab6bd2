"""The losses of the compared systems; test_equivalence_systems.py compares them with PyTorch's."""

import jax.numpy as jnp
import numpy as np
import pytest

from ergl_jax import registry
from ergl_jax.baselines.losses import relations
from ergl_jax.models import Output
from ergl_jax.models.losses import scene_loss

RNG = np.random.default_rng(0)
LOGITS, EVENT_LOGITS = np.float32(RNG.normal(size=(6, 4))), np.float32(RNG.normal(size=(6, 3)))
BY_SCENE = RNG.normal(size=(6, 4, 3)).astype(np.float32)
TARGETS = RNG.dirichlet(np.ones(4), 6).astype(np.float32)
EVENTS = RNG.random((6, 3), np.float32)
BY_FRAME = RNG.normal(size=(6, 5, 3)).astype(np.float32)
ACTIVITY = RNG.random((6, 10, 3), np.float32)
OUTPUT = Output(
    LOGITS, EVENT_LOGITS, event_logits_by_scene=BY_SCENE, event_logits_by_frame=BY_FRAME
)
SPLIT = {"scene": np.array([0, 3, 1, 1, 2, 0]), "events": EVENTS, "num_scenes": 4, "threshold": 0.5}


def bce(logits, labels):
    p = 1 / (1 + np.exp(-np.float64(logits)))
    return -(labels * np.log(p) + (1 - labels) * np.log(1 - p))


def parts_of(name, scene=TARGETS, output=OUTPUT):
    more = {"activity": ACTIVITY} if name == "frames" else {}
    return registry.make_loss(name, **SPLIT)(output, scene=scene, events=EVENTS, **more)


@pytest.mark.parametrize("name", registry.LOSSES)
def test_parts_add_up_and_a_mixed_up_clip_has_its_share_of_each_scene(name):
    parts = parts_of(name)
    related = {"relation_loss"} if name.startswith("rgasc") else set()
    assert set(parts) == {"loss", "scene_loss", "event_loss"} | related
    assert all(jnp.shape(part) == () and np.isfinite(part) for part in parts.values())
    total = sum(part for key, part in parts.items() if key != "loss")
    if name == "joint":  # four scenes and three events, each output counts alike
        total = bce(np.hstack([LOGITS, EVENT_LOGITS]), np.hstack([TARGETS, EVENTS])).mean()
    np.testing.assert_allclose(parts["loss"], total, rtol=1e-6)
    first, second = np.eye(4, dtype=np.float32)[[[0, 1, 2, 3, 0, 1], [2, 3, 0, 1, 1, 2]]]
    for key, part in parts_of(name, 0.3 * first + 0.7 * second).items():
        share = 0.3 * parts_of(name, first)[key] + 0.7 * parts_of(name, second)[key]
        np.testing.assert_allclose(part, share, rtol=1e-5)


def test_losses_of_one_task_ignore_the_other():
    scene, events = parts_of("scene"), parts_of("events")
    assert scene["loss"] == scene["scene_loss"] == scene_loss(logits=LOGITS, targets=TARGETS)
    np.testing.assert_allclose(events["loss"], bce(EVENT_LOGITS, EVENTS).mean(), rtol=1e-6)
    assert scene["event_loss"] == events["scene_loss"] == 0


def test_relations_are_those_of_each_scenes_clips():
    scene = np.array([2, 0, 2, 0, 2])
    events = np.float32([[0.2, 0.0], [0.9, 0.1], [0.6, 0.0], [0.5, 0.3], [0.1, 0.0]])
    found = relations(scene, events, 3, threshold=0.5)
    np.testing.assert_allclose(found.probability, [[0.7, 0.2], [0, 0], [0.3, 0]], rtol=1e-6)
    assert found.probability.dtype == np.float32 and found.present.dtype == bool
    assert found.present.tolist() == [[True, False], [False, False], [True, False]]
    assert relations(scene, events, 3, threshold=0.3).present[0].tolist() == [True, True]
