"""PANNs' convolutional encoders: Cnn14, Cnn10 and Cnn6 (arXiv 1912.10211, table 1).

Shapes: B clips, F frames, M mel bins, T encoder frames, D encoder channels.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.errors import InputError
from ergl_jax.kernels.batch_norm import EPSILON
from ergl_jax.kernels.pool import average_pool_2x2
from ergl_jax.models.layers import BATCH_NORM_MOMENTUM, BatchNormReLU, Conv, he_uniform
from ergl_jax.models.output import Output


class Architecture(NamedTuple):
    """One row of PANNs' table 1: what its blocks are made of."""

    channels: tuple[int, ...]
    kernel: int  # side of the square kernels
    convolutions: int  # in each block
    pools: int  # how many of the blocks, from the first, end in a 2x2 average pool


ARCHITECTURES = {
    "cnn14": Architecture((64, 128, 256, 512, 1024, 2048), kernel=3, convolutions=2, pools=5),
    "cnn10": Architecture((64, 128, 256, 512), kernel=3, convolutions=2, pools=4),
    "cnn6": Architecture((64, 128, 256, 512), kernel=5, convolutions=1, pools=4),
}


class ConvBlock(nn.Module):
    """[convolution without bias, BatchNorm, ReLU] once or twice, then a 2x2 pool or none."""

    channels: int
    kernel: int = 3
    convolutions: int = 2
    pool: bool = True
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, F, M, C) -> (B, F/2, M/2, channels), or (B, F, M, channels) without the pool."""
        for _ in range(self.convolutions):
            x = Conv(self.channels, self.kernel, self.dtype)(x)
            x = BatchNormReLU(self.axis_name, self.dtype)(x, train=train)
        return average_pool_2x2(x) if self.pool else x


class Encoder(nn.Module):
    """A log-mel spectrogram to one vector an encoder frame (§2.1; PANNs, table 1).

    Attributes:
      architecture: "cnn14", "cnn10" or "cnn6".
      width_divisor: every block has its channels divided by this.
      dropout: rate after each block.
      axis_name: the mapped axis over which BatchNorm shares its statistics.
      dtype: what convolutions are computed in.
    """

    architecture: str = "cnn14"
    width_divisor: int = 1
    dropout: float = 0.2
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> jax.Array:
        """(B, F, M) in dB -> (B, T, D): T = F / 32 and D = 2048 / width_divisor for Cnn14."""
        spec = architecture(self.architecture)
        if log_mel.ndim != 3:
            raise ValueError(f"log_mel must be (clips, frames, mel bins), not {log_mel.shape}")
        shortest = 2**spec.pools
        if min(log_mel.shape[1:]) < shortest:
            raise InputError(
                f"{self.architecture} halves time and frequency {spec.pools} times and needs at "
                f"least {shortest} frames and mel bins, not {log_mel.shape[1:]}: use longer clips"
            )
        # One mean, variance, scale and offset for each mel bin: M is the channel axis here. In dB
        # the mean is far from zero, where E[x²] - E[x]² loses digits.
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=BATCH_NORM_MOMENTUM,
            epsilon=EPSILON,
            axis_name=self.axis_name,
            use_fast_variance=False,
        )(log_mel)
        x = x[..., None].astype(self.dtype)  # (B, F, M, 1)
        for index, channels in enumerate(spec.channels):
            if channels % self.width_divisor:
                raise InputError(
                    f"model.encoder.width_divisor={self.width_divisor} does not divide the "
                    f"{channels} channels of {self.architecture}"
                )
            x = ConvBlock(
                channels // self.width_divisor,
                kernel=spec.kernel,
                convolutions=spec.convolutions,
                pool=index < spec.pools,
                axis_name=self.axis_name,
                dtype=self.dtype,
            )(x, train=train)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return x.mean(axis=2)  # over frequency: (B, T, D)


def architecture(name: str) -> Architecture:
    """The row of ARCHITECTURES, or an InputError that lists the names."""
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise InputError(f"model.encoder.architecture={name!r} is not one of: {known}")
    return ARCHITECTURES[name]


class PANN(nn.Module):
    """Encoder, max plus mean over time, fc1, fc_audioset, by PANNs' own names (arXiv 1912.10211).

    It tags events, each by itself, and knows no scenes.
    """

    num_events: int
    encoder: Encoder
    dropout: float = 0.5

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) in dB -> Output with event logits (B, n) and the embedding (B, D)."""
        h = self.encoder(log_mel, train=train)
        embedding = clip_embedding(h, dropout=self.dropout, train=train, name="fc1")
        z = nn.Dropout(self.dropout, deterministic=not train)(embedding)
        event_logits = nn.Dense(self.num_events, kernel_init=he_uniform, name="fc_audioset")(z)
        return Output(None, event_logits, embedding=embedding)


def clip_embedding(h: jax.Array, *, dropout: float, train: bool, name: str) -> jax.Array:
    """(B, T, D) -> (B, D): max plus mean over time, and the dense layer that follows it in PANNs.

    Called within a module, which the layer `name` is then a part of.
    """
    # Not h.max(axis=1), whose gradient looks for the maximum again and divides by how often it is
    # found: never, where a compiled program has rounded h otherwise for that, and then it is NaN.
    z = nn.max_pool(h, h.shape[1:2])[:, 0] + h.mean(axis=1)
    z = nn.Dropout(dropout, deterministic=not train)(z)
    return nn.relu(nn.Dense(z.shape[-1], kernel_init=he_uniform, name=name)(z))
