"""RGASC: scenes guided by their relations with events (github.com/Yuanbo2020/RGASC).

Hou et al., "Relation-guided acoustic scene classification aided with event embeddings", IJCNN 2022.
From the published code: Cnn14 with two copies of its blocks from the third on, a tower for the
scene and one for events; sizes, dropout, initialisation and losses; no BatchNorm of the input. Two
models of one task each are trained first (configs/rgasc.py); this one begins with their submodules
`shared`, `scene_tower`, `event_tower`, `scene` and `events`.

Shapes: B clips, F frames, M mel bins, T encoder frames, D channels, S scenes, n events.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.baselines.layers import Baseline, narrowed
from ergl_jax.baselines.losses import Relations
from ergl_jax.models.layers import he_uniform
from ergl_jax.models.losses import Parts, add, binary_loss, scene_loss
from ergl_jax.models.output import Output
from ergl_jax.models.panns import ARCHITECTURES, ConvBlock, clip_embedding

CHANNELS = ARCHITECTURES["cnn14"].channels
SHARED = 2  # the first so many blocks


class Blocks(nn.Module):
    """Some of Cnn14's blocks, dropout after each; the first `pools` of them end in a pool."""

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
    """The rest of Cnn14 for one task: blocks, max plus mean over time, a dense layer."""

    channels: tuple[int, ...]
    dropout: float
    embedding_dropout: float  # before the dense layer
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, F, M, C) -> the task's embedding (B, D)."""
        pools = len(self.channels) - 1
        x = Blocks(self.channels, pools, self.dropout, self.axis_name, self.dtype, name="blocks")(
            x, train=train
        )
        h = x.mean(axis=2).astype(jnp.float32)  # over frequency: (B, T, D)
        return clip_embedding(h, dropout=self.embedding_dropout, train=train, name="dense")


class RGASC(Baseline, kw_only=True):
    """Two blocks that scenes and events share, then a tower and a layer for each.

    Attributes:
      num_events: n.
      dropout: after each block.
      embedding_dropout: before the dense layer of both towers.
    """

    num_events: int
    dropout: float = 0.2
    embedding_dropout: float = 0.5

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) -> Output with scene and event logits."""
        channels = tuple(narrowed(c, self.width_divisor) for c in CHANNELS)
        mapped = (self.axis_name, self.dtype)
        x = self.normalise(log_mel, frames=32, mels=32)[..., None]
        x = Blocks(channels[:SHARED], SHARED, self.dropout, *mapped, name="shared")(x, train=train)
        outputs = []
        for tower, head, classes in (
            ("scene_tower", "scene", self.num_scenes),
            ("event_tower", "events", self.num_events),
        ):
            embedding = Tower(
                channels[SHARED:], self.dropout, self.embedding_dropout, *mapped, name=tower
            )(x, train=train)
            outputs.append(nn.Dense(classes, kernel_init=he_uniform, name=head)(embedding))
        scene_logits, event_logits = outputs
        return Output(scene_logits, event_logits)


def rgasc_loss(
    output: Output,
    *,
    scene: jax.Array,
    events: jax.Array,
    relations: Relations,
    activation: Callable,
) -> Parts:
    """Each task is also inferred from the other: q Rᵀ should be ℓ, and ℓ R should be q.

    ℓ (B, S) are the scene logits after `activation`, q (B, n) the probabilities of events, and R
    (S, n) those of events given a scene. `activation` is log_softmax in the published code
    (`train.loss="rgasc_log"`); softmax makes ℓ probabilities ("rgasc_prob").
    """
    guess, q = activation(output.scene_logits), nn.sigmoid(output.event_logits)
    r = relations.probability
    return add(
        scene_loss=scene_loss(logits=output.scene_logits, targets=scene),
        event_loss=binary_loss(logits=output.event_logits, targets=events),
        relation_loss=jnp.square(q @ r.T - guess).mean() + jnp.square(guess @ r - q).mean(),
    )
