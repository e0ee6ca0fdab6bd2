"""A CRNN with self-attention: gated convolutions, a recurrent layer, attention, attention pooling.

Wang and Li, "Self-attention mechanism based system for DCASE 2018 challenge task 1 and task 4".
What is certain: the parts, which its authors' abstract names. Readings of ours: all sizes; that
each gated convolution has BatchNorm before its gate; that pools halve frequency alone, so that
there is one state a frame to attend over; the maximum over the frequencies that are left; dropout
before the pooling; and what c and a are (see `attention_pool`).

Shapes: B clips, F frames, M mel bins, H = 2 * 128 recurrent features, S scenes.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.baselines.mtl import BiGRU
from ergl_jax.baselines.normalisation import Standardise
from ergl_jax.baselines.shapes import check_input, max_pool, narrowed
from ergl_jax.kernels.batch_norm import EPSILON
from ergl_jax.models.layers import (
    BATCH_NORM_MOMENTUM,
    BatchNormReLU,
    Conv,
    he_uniform,
    small_uniform,
)
from ergl_jax.models.output import Output

STAGES = 4  # each halves frequency


class GatedConv(nn.Module):
    """Convolution 3x3 to 2 * channels, BatchNorm, and half of it gated by the other half."""

    channels: int
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, F, M, C) -> (B, F, M, channels): a * sigmoid(b)."""
        x = Conv(2 * self.channels, dtype=self.dtype)(x)
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=BATCH_NORM_MOMENTUM,
            epsilon=EPSILON,
            axis_name=self.axis_name,
            dtype=self.dtype,
        )(x)
        return nn.glu(x)


class SelfAttention(nn.Module):
    """h + softmax(h Wq (h Wk)^T / sqrt(d)) h Wv over time, without biases; d is h's width."""

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        """(B, T, H) -> (B, T, H)."""
        width = h.shape[-1]
        q, k, v = (nn.Dense(width, use_bias=False, name=name)(h) for name in "qkv")
        attention = nn.softmax(jnp.einsum("bth,bsh->bts", q, k) / math.sqrt(width))
        return h + jnp.einsum("bts,bsh->bth", attention, v)


def attention_pool(c: jax.Array, a: jax.Array) -> jax.Array:
    """log(sum(a * c) / sum(a)) over time, of the logits of both: (B, T, S) each -> (B, S).

    c is the softmax over the scenes at each frame, a the sigmoid of each frame and scene. As the
    quotients of a clip need not add up to 1, cross entropy's softmax of these logarithms divides
    them by their sum; where a is the same for all scenes, it changes nothing.
    """
    log_a = nn.log_sigmoid(a)
    return nn.logsumexp(log_a + nn.log_softmax(c), axis=1) - nn.logsumexp(log_a, axis=1)


class AttentionCRNN(nn.Module):
    """The scene of a clip by a gated CRNN that attends over its own frames.

    Attributes:
      num_scenes: S.
      width_divisor: all channels and recurrent units are divided by this.
      dropout: before the attention pooling.
      axis_name: the mapped axis over which BatchNorm shares its statistics.
      dtype: what convolutions are computed in.
    """

    num_scenes: int
    width_divisor: int = 1
    dropout: float = 0.5
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) -> Output with scene logits alone."""
        check_input("the CRNN with self-attention", log_mel, frames=1, mels=2**STAGES)
        gated, wide, units = (narrowed(width, self.width_divisor) for width in (64, 256, 128))
        x = Standardise(name="standardise")(log_mel)[..., None]
        for stage in range(STAGES):
            for block in range(2):
                name = f"gated{stage}_{block}"
                x = GatedConv(gated, self.axis_name, self.dtype, name=name)(x, train=train)
            x = max_pool(x, 1, 2)
        x = Conv(wide, dtype=self.dtype, name="conv")(x)  # (B, F, M / 16, 256)
        x = BatchNormReLU(self.axis_name, self.dtype, name="norm")(x, train=train)
        x = max_pool(x, 1, x.shape[2])  # (B, F, 1, 256)
        h = BiGRU(units, name="gru")(x)  # (B, F, H)
        h = SelfAttention(name="attention")(h)
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        c = nn.Dense(self.num_scenes, kernel_init=small_uniform, name="scene")(h)
        a = nn.Dense(self.num_scenes, kernel_init=he_uniform, name="weight")(h)
        return Output(attention_pool(c, a))
