"""MTL: events and scenes by multitask learning (github.com/KeisukeImoto/mtl_sed_asc).

Tonami et al., "Joint Analysis of Acoustic Events and Scenes Based on Multitask Learning", WASPAA
2019. Certain, from its published code: layers, sizes, dropout, and uniform kernels in
+-1/sqrt(fan_in), PyTorch's default. Readings of ours: it labels the events of frames, and our
labels are those of clips, so its frame logits are averaged over time; features are standardised by
band; biases begin at 0 and the GRUs as Flax has them; in clips too short for a time pool all frames
are one pool.

Shapes: B clips, F frames, M mel bins, C channels, n events.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.baselines.normalisation import Standardise
from ergl_jax.baselines.shapes import check_input, max_pool, narrowed
from ergl_jax.models.layers import BatchNormReLU
from ergl_jax.models.output import Output

pytorch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class PooledConv(nn.Module):
    """3x3 convolution with bias, BatchNorm, ReLU, max pool.

    Attributes:
      channels: of the convolution.
      pool: frames and bins that become one.
      axis_name, dtype: as of `MTL`.
    """

    channels: int
    pool: tuple[int, int]
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, F, M, C) -> (B, F / pool, M / pool, channels)."""
        x = nn.Conv(self.channels, (3, 3), dtype=self.dtype, kernel_init=pytorch_uniform)(x)
        return max_pool(BatchNormReLU(self.axis_name, self.dtype)(x, train=train), *self.pool)


class Backbone(nn.Module):
    """What events and scenes share: three convolutions.

    Attributes: as of `MTL`.
    """

    width_divisor: int = 1
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Standardised log-mel (B, F, M) -> (B, F, M / 32, 128 / width_divisor)."""
        check_input("the backbone of MTL", x, frames=1, mels=32)
        x = x[..., None]
        channels = narrowed(128, self.width_divisor)
        for bins in (8, 2, 2):
            x = PooledConv(channels, (1, bins), self.axis_name, self.dtype)(x, train=train)
        return x


class BiGRU(nn.Module):
    """One GRU forwards and one backwards in time over a map, in float32."""

    units: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, F, M, C) -> (B, F, 2 units): at each frame, M and C are one vector."""
        x = x.reshape(*x.shape[:2], -1).astype(jnp.float32)
        forwards, backwards = (nn.RNN(nn.GRUCell(self.units)) for _ in range(2))
        return nn.Bidirectional(forwards, backwards)(x)


class SceneHead(nn.Module):
    """Two more convolutions, pooled to one frame, and two dense layers.

    Attributes: as of `MTL`.
    """

    num_scenes: int
    width_divisor: int = 1
    dropout: float = 0.15
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The backbone's map -> scene logits (B, scenes)."""
        channels = narrowed(256, self.width_divisor)
        for frames in (25, 20):
            x = PooledConv(channels, (frames, 1), self.axis_name, self.dtype)(x, train=train)
        x = x.reshape(x.shape[0], -1).astype(jnp.float32)  # (B, 512) of 500 frames and 64 bins
        units = narrowed(32, self.width_divisor)
        x = nn.relu(nn.Dense(units, kernel_init=pytorch_uniform, name="dense")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_scenes, kernel_init=pytorch_uniform, name="scene")(x)


class MTL(nn.Module):
    """A shared backbone, a recurrent head for events and a convolutional one for the scene.

    Attributes:
      num_scenes, num_events: the classes.
      width_divisor: channels, GRU and dense units are divided by this.
      dropout: before the last layer of both heads.
      axis_name: the mapped axis over which BatchNorm shares its statistics.
      dtype: what convolutions are computed in.
    """

    num_scenes: int
    num_events: int
    width_divisor: int = 1
    dropout: float = 0.15
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) -> Output with scene and event logits."""
        shared = (self.axis_name, self.dtype)
        x = Standardise(name="standardise")(log_mel)
        x = Backbone(self.width_divisor, *shared, name="backbone")(x, train=train)
        scene_logits = SceneHead(
            self.num_scenes, self.width_divisor, self.dropout, *shared, name="scene_head"
        )(x, train=train)
        h = BiGRU(narrowed(64, self.width_divisor), name="gru")(x)
        units = narrowed(32, self.width_divisor)
        h = nn.relu(nn.Dense(units, kernel_init=pytorch_uniform, name="event_dense")(h))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        # The mean of frame logits: it commutes with the last layer, and before it is cheaper.
        event_logits = nn.Dense(self.num_events, kernel_init=pytorch_uniform, name="events")(
            h.mean(axis=1)
        )
        return Output(scene_logits, event_logits)
