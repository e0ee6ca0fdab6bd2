"""RGASC: scenes guided by their relations with events (github.com/Yuanbo2020/RGASC).

Hou et al., "Relation-guided acoustic scene classification aided with event embeddings", IJCNN 2022.
Certain, from its published code: Cnn14 whose blocks from the third on are there twice, a tower for
the scene and one for events; sizes, dropout and initialisation; no BatchNorm of the input. The
relations are in its losses: "rgasc_log", as published, and "rgasc_prob". The parts that models of
one task hand on are `shared`, `scene_tower`, `event_tower`, `scene` and `events`.

Shapes: B clips, F frames, M mel bins, T encoder frames, D channels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.baselines.normalisation import Standardise
from ergl_jax.baselines.shapes import check_input, narrowed
from ergl_jax.models.layers import he_uniform
from ergl_jax.models.output import Output
from ergl_jax.models.panns import ARCHITECTURES, ConvBlock, clip_embedding

CHANNELS = ARCHITECTURES["cnn14"].channels
SHARED = 2  # blocks, the first


class Blocks(nn.Module):
    """Some of Cnn14's blocks, dropout after each.

    Attributes:
      channels: of each block.
      pools: how many of them, from the first, end in a pool.
      dropout: the rate.
      axis_name, dtype: as of `RGASC`.
    """

    channels: tuple[int, ...]
    pools: int
    dropout: float
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, F, M, C) -> (B, F / 2^pools, M / 2^pools, channels of the last)."""
        for index, channels in enumerate(self.channels):
            x = ConvBlock(
                channels, pool=index < self.pools, axis_name=self.axis_name, dtype=self.dtype
            )(x, train=train)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return x


class Tower(nn.Module):
    """The rest of Cnn14 for one task: blocks, max plus mean over time, a dense layer.

    Attributes: as of `Blocks`, and embedding_dropout, before the dense layer.
    """

    channels: tuple[int, ...]
    dropout: float
    embedding_dropout: float
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, F, M, C) -> the task's embedding (B, D)."""
        x = Blocks(
            self.channels,
            len(self.channels) - 1,
            self.dropout,
            self.axis_name,
            self.dtype,
            name="blocks",
        )(x, train=train)
        h = x.mean(axis=2).astype(jnp.float32)  # over frequency: (B, T, D)
        return clip_embedding(h, dropout=self.embedding_dropout, train=train, name="dense")


class RGASC(nn.Module):
    """Two blocks that scenes and events share, a tower and a layer for each.

    Attributes:
      num_scenes, num_events: the classes.
      width_divisor: every block has its channels divided by this.
      dropout: after each block.
      embedding_dropout: before the dense layer of both towers.
      axis_name: the mapped axis over which BatchNorm shares its statistics.
      dtype: what convolutions are computed in.
    """

    num_scenes: int
    num_events: int
    width_divisor: int = 1
    dropout: float = 0.2
    embedding_dropout: float = 0.5
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) -> Output with scene and event logits."""
        check_input("RGASC", log_mel, frames=32, mels=32)
        channels = tuple(narrowed(c, self.width_divisor) for c in CHANNELS)
        mapped = (self.axis_name, self.dtype)
        x = Standardise(name="standardise")(log_mel)[..., None]
        x = Blocks(channels[:SHARED], SHARED, self.dropout, *mapped, name="shared")(x, train=train)
        logits = []
        for tower, head, classes in (
            ("scene_tower", "scene", self.num_scenes),
            ("event_tower", "events", self.num_events),
        ):
            embedding = Tower(
                channels[SHARED:], self.dropout, self.embedding_dropout, *mapped, name=tower
            )(x, train=train)
            logits.append(nn.Dense(classes, kernel_init=he_uniform, name=head)(embedding))
        return Output(*logits)
