"""The losses of ERGL (§2: L = L_event + L_scene) and of the systems it is compared with, by name.

Shapes: B clips, S scenes, n events, N clips of a split. Target probabilities of scenes may be mixed
up, and labels of events are soft: every loss takes both.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ergl_jax.models import Output

Parts = dict[str, jax.Array]  # scalars: loss, scene_loss, event_loss[, relation_loss]


class Relations(NamedTuple):
    """What the training split says of events and scenes."""

    probability: np.ndarray  # of an event given a scene: (S, n) float32
    present: np.ndarray  # whether the scene has the event at all: (S, n) bool


def relations(
    scene: np.ndarray, events: np.ndarray, num_scenes: int, threshold: float
) -> Relations:
    """The relations of a split, for a scene without clips 0 and False.

    Args:
      scene: classes (N,).
      events: soft labels (N, n); their mean over a scene's clips is the probability.
      threshold: an event is present where some clip of the scene has a label of at least this.
    """
    of_scene = np.arange(num_scenes)[:, None] == scene  # (S, N)
    count = np.maximum(of_scene.sum(axis=1, keepdims=True), 1)
    probability = (of_scene / count) @ events
    present = of_scene @ (events >= threshold)
    return Relations(probability.astype(np.float32), present)


def scene_loss(*, logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross entropy of logits (B, S) with target probabilities (B, S), mean over B."""
    chex.assert_equal_shape((logits, targets))
    return optax.softmax_cross_entropy(logits, targets).mean()


def event_loss(*, logits: jax.Array, targets: jax.Array) -> jax.Array:
    """(sigmoid(logits) - soft labels)² for (B, n) each, mean over clips and events (§2.1)."""
    chex.assert_equal_shape((logits, targets))
    return jnp.square(nn.sigmoid(logits) - targets).mean()


def binary_loss(*, logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Binary cross entropy of logits with soft labels, mean over all of them."""
    chex.assert_equal_shape((logits, targets))
    return optax.sigmoid_binary_cross_entropy(logits, targets).mean()


def losses(
    output: Output, *, scene: jax.Array, events: jax.Array, of_events: Callable = event_loss
) -> Parts:
    """ERGL's parts and their sum, as scalars: scene_loss, event_loss and loss.

    Args:
      output: a model's; where its `event_logits` are None, event_loss is 0.
      scene: target probabilities (B, S).
      events: soft labels (B, n).
      of_events: the loss of event logits; that of "bce" is `binary_loss`.
    """
    if output.event_logits is None:
        event = jnp.zeros(())
    else:
        event = of_events(logits=output.event_logits, targets=events)
    return _sum(scene_loss=scene_loss(logits=output.scene_logits, targets=scene), event_loss=event)


def _nll(output: Output, *, scene, events) -> Parts:
    """The scene logits are taken for log-probabilities as they are."""
    chex.assert_equal_shape((output.scene_logits, scene))
    return _sum(
        scene_loss=-(scene * output.scene_logits).sum(axis=-1).mean(), event_loss=jnp.zeros(())
    )


def _scene(output: Output, *, scene, events) -> Parts:
    return _sum(
        scene_loss=scene_loss(logits=output.scene_logits, targets=scene), event_loss=jnp.zeros(())
    )


def _events(output: Output, *, scene, events) -> Parts:
    return _sum(
        scene_loss=jnp.zeros(()),
        event_loss=binary_loss(logits=output.event_logits, targets=events),
    )


def _joint(output: Output, *, scene, events) -> Parts:
    """One binary cross entropy, mean over all S + n outputs; the parts are means of their own."""
    parts = {
        "scene_loss": binary_loss(logits=output.scene_logits, targets=scene),
        "event_loss": binary_loss(logits=output.event_logits, targets=events),
    }
    scenes, n = scene.shape[-1], events.shape[-1]
    total = scenes * parts["scene_loss"] + n * parts["event_loss"]
    return parts | {"loss": total / (scenes + n)}


def _conditional(output: Output, *, scene, events, relations: Relations) -> Parts:
    """Events are judged given the true scene, given a wrong one, and given the predicted π.

    Given a wrong scene, only events that it has in training can be there. Where the system draws
    one wrong scene, this is the mean over all: what drawing gives on average. A mixed-up clip has
    each scene as its true one in part.
    """
    by_scene = output.event_logits_by_scene  # (B, S, n)
    chex.assert_shape(by_scene, (*scene.shape, events.shape[-1]))
    labels = jnp.broadcast_to(events[:, None], by_scene.shape)

    def mean(labels, weights):  # weights (B, S) add up to 1 for each clip
        each = optax.sigmoid_binary_cross_entropy(by_scene, labels).mean(axis=-1)
        return (weights * each).sum(axis=-1).mean()

    wrong = (1 - scene) / max(scene.shape[-1] - 1, 1)
    return _sum(
        scene_loss=scene_loss(logits=output.scene_logits, targets=scene),
        event_loss=mean(labels, scene)
        + mean(labels * relations.present, wrong)
        + binary_loss(logits=output.event_logits, targets=events),
    )


def _rgasc(output: Output, *, scene, events, relations: Relations, activation: Callable) -> Parts:
    """Each task is also inferred from the other: q Rᵀ should be ℓ, and ℓ R should be q.

    ℓ (B, S) are the scene logits after `activation`, q (B, n) the probabilities of events, and R
    (S, n) those of events given a scene.
    """
    guess, q = activation(output.scene_logits), nn.sigmoid(output.event_logits)
    r = relations.probability
    return _sum(
        scene_loss=scene_loss(logits=output.scene_logits, targets=scene),
        event_loss=binary_loss(logits=output.event_logits, targets=events),
        relation_loss=jnp.square(q @ r.T - guess).mean() + jnp.square(guess @ r - q).mean(),
    )


def _sum(**parts: jax.Array) -> Parts:
    return parts | {"loss": sum(parts.values())}


LOSSES = {
    "ergl": losses,
    "bce": partial(losses, of_events=binary_loss),
    "nll": _nll,
    "scene": _scene,
    "events": _events,
    "joint": _joint,
}
# These also need the relations of the training split.
RELATED = {
    "conditional": _conditional,
    "rgasc_log": partial(_rgasc, activation=nn.log_softmax),
    "rgasc_prob": partial(_rgasc, activation=nn.softmax),
}


def make_loss(name: str, relations: Relations | None) -> Callable[..., Parts]:
    """The loss of that name: (output, *, scene (B, S), events (B, n)) -> `Parts`.

    - "ergl": cross entropy of scenes and mean square of events. "bce": with the binary cross
      entropy of events. In both, events count 0 for a model without event logits.
    - "scene", "events": one task alone, by cross entropy or binary cross entropy; the other part
      is 0. "nll": scenes alone, whose logits are taken for log-probabilities as they are.
    - "joint": one binary cross entropy over the outputs for scenes and events together.
    - "conditional": see `_conditional`. "rgasc_log", "rgasc_prob": see `_rgasc`, whose ℓ are
      log-probabilities or probabilities. These three need `relations`.
    """
    if name in LOSSES:
        return LOSSES[name]
    if relations is None:
        raise ValueError(f"the loss {name} needs the relations of the training split")
    return partial(RELATED[name], relations=relations)
