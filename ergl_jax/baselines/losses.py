"""Losses that several compared systems use, and the relations between scenes and events.

Shapes: B clips, S scenes, n events, N clips of a split.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ergl_jax.models.losses import Parts, add, binary_loss, scene_loss
from ergl_jax.models.output import Output


class Relations(NamedTuple):
    """How often each event occurs in each scene, by the training split."""

    probability: np.ndarray  # P(event | scene): (S, n) float32
    present: np.ndarray  # whether the scene has the event at all: (S, n) bool


def relations(
    scene: np.ndarray, events: np.ndarray, num_scenes: int, threshold: float
) -> Relations:
    """The relations of a split; 0 and False for a scene without clips.

    Args:
      scene: classes (N,).
      events: soft labels (N, n); their mean over a scene's clips is the probability.
      num_scenes: S.
      threshold: an event is present where a clip of the scene has a label of at least this.
    """
    of_scene = np.arange(num_scenes)[:, None] == scene  # (S, N)
    count = np.maximum(of_scene.sum(axis=1, keepdims=True), 1)
    probability = (of_scene / count) @ events
    present = of_scene @ (events >= threshold)
    return Relations(probability.astype(np.float32), present)


def scene_only(output: Output, *, scene: jax.Array, events: jax.Array) -> Parts:
    """Cross entropy of the scene; events do not count."""
    loss = scene_loss(logits=output.scene_logits, targets=scene)
    return add(scene_loss=loss, event_loss=jnp.zeros(()))


def events_only(output: Output, *, scene: jax.Array, events: jax.Array) -> Parts:
    """Binary cross entropy of the events; the scene does not count."""
    loss = binary_loss(logits=output.event_logits, targets=events)
    return add(scene_loss=jnp.zeros(()), event_loss=loss)
