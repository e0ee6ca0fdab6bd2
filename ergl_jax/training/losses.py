"""The losses of §2: L = L_event + L_scene."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ergl_jax.models import Output


def scene_loss(*, logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross entropy of logits (B, scenes) with target probabilities (B, scenes), mean over B."""
    chex.assert_equal_shape((logits, targets))
    return optax.softmax_cross_entropy(logits, targets).mean()


def event_loss(*, logits: jax.Array, targets: jax.Array) -> jax.Array:
    """(sigmoid(logits) - soft labels)² for (B, n) each, mean over clips and events (§2.1)."""
    chex.assert_equal_shape((logits, targets))
    return jnp.square(nn.sigmoid(logits) - targets).mean()


def losses(output: Output, *, scene: jax.Array, events: jax.Array) -> dict[str, jax.Array]:
    """The parts and their sum, as scalars: scene_loss, event_loss (0 without events) and loss.

    Args:
      output: a model's; `event_logits` may be None.
      scene: target probabilities (B, scenes).
      events: soft labels (B, n).
    """
    parts = {"scene_loss": scene_loss(logits=output.scene_logits, targets=scene)}
    if output.event_logits is None:
        parts["event_loss"] = jnp.zeros(())
    else:
        parts["event_loss"] = event_loss(logits=output.event_logits, targets=events)
    return parts | {"loss": parts["scene_loss"] + parts["event_loss"]}
