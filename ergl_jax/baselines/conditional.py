"""Events conditioned on the scene: the conditional system of Table 4, as we interpret it.

Its source was not available. MTL's backbone and heads; the hidden layer of the events also reads a
scene vector c, by a linear layer of its own before the nonlinearity: one-hot for a given scene, the
predicted probabilities π without one.

Shapes: B clips, F frames, M mel bins, S scenes, n events, H hidden units.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.baselines.layers import TwoHeads, pytorch_uniform
from ergl_jax.baselines.losses import Relations
from ergl_jax.models.losses import Parts, add, binary_cross_entropy, binary_loss, scene_loss
from ergl_jax.models.output import Output


class Conditional(TwoHeads):
    """MTL whose event head also reads a scene."""

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) -> Output: event logits at c = π, and those by scene (B, S, n)."""
        scene_logits, h = self.heads(log_mel, train=train)
        # What each scene adds to the hidden layer: (S, H).
        kernel = self.param("scene_kernel", pytorch_uniform, (self.num_scenes, h.shape[-1]))
        predicted = (nn.softmax(scene_logits) @ kernel)[:, None]
        given = jnp.broadcast_to(kernel, (h.shape[0], *kernel.shape))
        added = jnp.concatenate([predicted, given], axis=1)  # (B, 1 + S, H)
        hidden = nn.relu(h[:, None] + added[:, :, None])  # (B, 1 + S, F, H)
        hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
        # The mean of frame logits, as in MTL.
        event_logits = nn.Dense(self.num_events, kernel_init=pytorch_uniform, name="events")(
            hidden.mean(axis=2)
        )
        return Output(scene_logits, event_logits[:, 0], event_logits_by_scene=event_logits[:, 1:])


def conditional_loss(
    output: Output, *, scene: jax.Array, events: jax.Array, relations: Relations
) -> Parts:
    """Cross entropy of the scene; that of events given the true scene, a wrong one, and π.

    Given a wrong scene, the only possible events are those it has in training. The published system
    draws one wrong scene; this is the mean over all of them, the expectation of drawing. A mixed-up
    clip has each of its scenes as the true one, by its share.
    """
    by_scene = output.event_logits_by_scene  # (B, S, n)
    labels = jnp.broadcast_to(events[:, None], by_scene.shape)

    def mean(labels, weights):  # weights (B, S) add up to 1 for each clip
        each = binary_cross_entropy(by_scene, labels).mean(axis=-1)
        return (weights * each).sum(axis=-1).mean()

    wrong = (1 - scene) / max(scene.shape[-1] - 1, 1)
    return add(
        scene_loss=scene_loss(logits=output.scene_logits, targets=scene),
        event_loss=mean(labels, scene)
        + mean(labels * relations.present, wrong)
        + binary_loss(logits=output.event_logits, targets=events),
    )
