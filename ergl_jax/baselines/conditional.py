"""Events conditioned on the scene: an interpretation of the conditional system of Table 4.

All of it is a reading of ours, as its source could not be had: MTL's backbone and heads, but the
hidden layer of the events also sees a scene vector c, one-hot for a scene that is given and the
predicted probabilities π where none is. c enters before the nonlinearity, by a linear layer of its
own. The loss is "conditional".

Shapes: B clips, F frames, M mel bins, S scenes, n events, H hidden units.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.baselines.mtl import Backbone, BiGRU, SceneHead, pytorch_uniform
from ergl_jax.baselines.normalisation import Standardise
from ergl_jax.baselines.shapes import narrowed
from ergl_jax.models.output import Output


class Conditional(nn.Module):
    """MTL whose event head is told a scene.

    Attributes: as of `MTL`.
    """

    num_scenes: int
    num_events: int
    width_divisor: int = 1
    dropout: float = 0.15
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) -> Output: event logits at c = π, and those by scene (B, S, n)."""
        shared = (self.axis_name, self.dtype)
        x = Standardise(name="standardise")(log_mel)
        x = Backbone(self.width_divisor, *shared, name="backbone")(x, train=train)
        scene_logits = SceneHead(
            self.num_scenes, self.width_divisor, self.dropout, *shared, name="scene_head"
        )(x, train=train)
        h = BiGRU(narrowed(64, self.width_divisor), name="gru")(x)
        units = narrowed(32, self.width_divisor)
        heard = nn.Dense(units, kernel_init=pytorch_uniform, name="event_dense")(h)  # (B, F, H)
        # What each scene adds to the hidden layer: the rows of the linear layer of c.
        told = self.param("scene_kernel", pytorch_uniform, (self.num_scenes, units))
        # π first, then every scene: (B, 1 + S, H).
        given = jnp.concatenate(
            [
                (nn.softmax(scene_logits) @ told)[:, None],
                jnp.broadcast_to(told, (x.shape[0], *told.shape)),
            ],
            axis=1,
        )
        hidden = nn.relu(heard[:, None] + given[:, :, None])  # (B, 1 + S, F, H)
        hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
        # The mean of frame logits, as in MTL.
        event_logits = nn.Dense(self.num_events, kernel_init=pytorch_uniform, name="events")(
            hidden.mean(axis=2)
        )
        return Output(scene_logits, event_logits[:, 0], event_logits_by_scene=event_logits[:, 1:])
