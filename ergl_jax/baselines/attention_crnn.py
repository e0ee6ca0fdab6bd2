"""A CRNN with self-attention: gated convolutions, a GRU, self-attention, attention pooling.

Wang and Li, "Self-attention mechanism based system for DCASE 2018 challenge task 1 and task 4".
Its abstract names the parts. Our interpretation: all sizes; BatchNorm before each gate; pools over
frequency alone, which leaves one state a frame to attend over, and a maximum over the remaining
frequencies; dropout before the pooling; and c and a of `attention_pool`.

Shapes: B clips, F frames, M mel bins, H = 2 * 128 recurrent features, S scenes.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.baselines.layers import Baseline, BiGRU, max_pool, narrowed
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
    """Convolution 3x3 to 2 * channels, BatchNorm; one half gates the other."""

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
    """h + softmax(h Wq (h Wk)^T / sqrt(d)) h Wv over time, without biases; d is the width of h."""

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        """(B, T, H) -> (B, T, H)."""
        width = h.shape[-1]
        q, k, v = (nn.Dense(width, use_bias=False, name=name)(h) for name in "qkv")
        attention = nn.softmax(jnp.einsum("bth,bsh->bts", q, k) / math.sqrt(width))
        return h + jnp.einsum("bts,bsh->bth", attention, v)


def attention_pool(c: jax.Array, a: jax.Array) -> jax.Array:
    """log(sum(a * c) / sum(a)) over time; c and a as logits (B, T, S) -> (B, S).

    c is the softmax over scenes at each frame, a the sigmoid of each frame and scene. The quotients
    of a clip need not add up to 1; the softmax of the cross entropy normalises them.
    """
    log_a = nn.log_sigmoid(a)
    return nn.logsumexp(log_a + nn.log_softmax(c), axis=1) - nn.logsumexp(log_a, axis=1)


class AttentionCRNN(Baseline):
    """Four stages of gated convolutions, a GRU, self-attention over frames, attention pooling.

    Attributes:
      dropout: before the attention pooling.
    """

    dropout: float = 0.5

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) -> Output with scene logits alone."""
        gated, wide, units = (narrowed(width, self.width_divisor) for width in (64, 256, 128))
        x = self.normalise(log_mel, frames=1, mels=2**STAGES)[..., None]
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
