"""Scenes and events by one layer: an interpretation of the joint system of Table 4.

Certain: a CRNN, one embedding that both share, one layer of all outputs, and one binary cross
entropy over them, scenes included (the loss "joint"); the scene is the largest of its outputs.
Readings of ours: the sizes, which are those of MTL's backbone and GRU, and that the embedding is
the mean over time of what the GRU returns.

Shapes: B clips, F frames, M mel bins.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.baselines.mtl import Backbone, BiGRU, pytorch_uniform
from ergl_jax.baselines.normalisation import Standardise
from ergl_jax.baselines.shapes import narrowed
from ergl_jax.models.output import Output


class Joint(nn.Module):
    """Convolutions, a GRU in both directions, the mean over time, one layer.

    Attributes:
      num_scenes, num_events: the classes.
      width_divisor: channels and GRU units are divided by this.
      axis_name: the mapped axis over which BatchNorm shares its statistics.
      dtype: what convolutions are computed in.
    """

    num_scenes: int
    num_events: int
    width_divisor: int = 1
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) -> Output with scene and event logits."""
        x = Standardise(name="standardise")(log_mel)
        x = Backbone(self.width_divisor, self.axis_name, self.dtype, name="backbone")(
            x, train=train
        )
        embedding = BiGRU(narrowed(64, self.width_divisor), name="gru")(x).mean(axis=1)  # (B, 128)
        outputs = nn.Dense(
            self.num_scenes + self.num_events, kernel_init=pytorch_uniform, name="outputs"
        )(embedding)
        return Output(outputs[:, : self.num_scenes], outputs[:, self.num_scenes :])
