"""Scenes and events by one layer: the joint system of Table 4, as we interpret it.

From its description: a CRNN, one embedding and one layer for all outputs, one binary cross entropy
over them, scenes included; the predicted scene is the largest of its outputs. Our interpretation:
the sizes, those of MTL's backbone and GRU, and the mean of the GRU over time as the embedding.

Shapes: B clips, F frames, M mel bins, S scenes, n events.
"""

import flax.linen as nn
import jax

from ergl_jax.baselines.layers import Backbone, Baseline, BiGRU, narrowed, pytorch_uniform
from ergl_jax.models.losses import Parts, binary_loss
from ergl_jax.models.output import Output


class Joint(Baseline, kw_only=True):
    """Convolutions, a GRU in both directions, the mean over time, one layer.

    Attributes:
      num_events: n.
    """

    num_events: int

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) -> Output with scene and event logits."""
        x = self.normalise(log_mel, frames=1, mels=32)
        x = Backbone(self.width_divisor, self.axis_name, self.dtype, name="backbone")(
            x, train=train
        )
        embedding = BiGRU(narrowed(64, self.width_divisor), name="gru")(x).mean(axis=1)  # (B, 128)
        outputs = nn.Dense(
            self.num_scenes + self.num_events, kernel_init=pytorch_uniform, name="outputs"
        )(embedding)
        return Output(outputs[:, : self.num_scenes], outputs[:, self.num_scenes :])


def joint_loss(output: Output, *, scene: jax.Array, events: jax.Array) -> Parts:
    """One binary cross entropy, mean over all S + n outputs; the parts are means of their own."""
    parts = {
        "scene_loss": binary_loss(logits=output.scene_logits, targets=scene),
        "event_loss": binary_loss(logits=output.event_logits, targets=events),
    }
    scenes, n = scene.shape[-1], events.shape[-1]
    total = scenes * parts["scene_loss"] + n * parts["event_loss"]
    return parts | {"loss": total / (scenes + n)}
