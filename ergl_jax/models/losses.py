"""The loss of the paper, L = L_event + L_scene (§2), and its variant with binary cross entropy.

Shapes: B clips, S scenes, n events. Scene targets are probabilities, since mixup mixes them; event
labels are soft.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.models.output import Output

Parts = dict[str, Any]  # scalar arrays: scene_loss, event_loss[, relation_loss] and loss


def scene_loss(*, logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross entropy of logits (B, S) with target probabilities (B, S), mean over B."""
    _check_shapes(logits, targets)
    return -(targets * nn.log_softmax(logits)).sum(axis=-1).mean()


def event_loss(*, logits: jax.Array, targets: jax.Array) -> jax.Array:
    """(sigmoid(logits) - soft labels)² for (B, n) each, mean over clips and events (§2.1)."""
    _check_shapes(logits, targets)
    return jnp.square(nn.sigmoid(logits) - targets).mean()


def binary_loss(*, logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Binary cross entropy of logits with soft labels of the same shape, mean over all of them."""
    _check_shapes(logits, targets)
    return binary_cross_entropy(logits, targets).mean()


def binary_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Of each logit with its soft label, in the shape of both."""
    return -targets * nn.log_sigmoid(logits) - (1.0 - targets) * nn.log_sigmoid(-logits)


def losses(
    output: Output, *, scene: jax.Array, events: jax.Array, of_events: Callable = event_loss
) -> Parts:
    """L_scene, L_event and their sum.

    Args:
      output: of a model; where its `event_logits` are None, event_loss is 0.
      scene: target probabilities (B, S).
      events: soft labels (B, n).
      of_events: `event_loss`, or `binary_loss` for `train.loss="bce"`.
    """
    if output.event_logits is None:
        event = jnp.zeros(())
    else:
        event = of_events(logits=output.event_logits, targets=events)
    return add(scene_loss=scene_loss(logits=output.scene_logits, targets=scene), event_loss=event)


def add(**parts: jax.Array) -> Parts:
    """The parts, and their sum as `loss`."""
    return parts | {"loss": sum(parts.values())}


def _check_shapes(logits: jax.Array, targets: jax.Array) -> None:
    if logits.shape != targets.shape:  # they would broadcast
        raise ValueError(f"logits are {logits.shape}, targets {targets.shape}")
