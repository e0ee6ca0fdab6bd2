"""PANNs' convolutional encoders: Cnn14, Cnn10 and Cnn6 (arXiv 1912.10211, table 1).

Shapes: B clips, F frames, M mel bins, T encoder frames, D encoder channels.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.errors import InputError

# Uniform in +-sqrt(6 / fan_in): for convolutions and dense layers alike.
he_uniform = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
# A tenth of that for the scene layers, so that training begins near equal probabilities. The
# features it reads are all positive and alike from clip to clip: at full size their common part
# drowns the rest, and ERGL learns much slower (benchmarks/RESULTS.md, "Scene layer").
small_uniform = nn.initializers.variance_scaling(0.02, "fan_in", "uniform")

BATCH_NORM_MOMENTUM = 0.9  # in Flax's sense: 0.1 in PyTorch's
BATCH_NORM_EPSILON = 1e-5


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


def batch_norm(
    train: bool, axis_name: str | None, dtype: jnp.dtype, *, two_passes: bool = False
) -> Callable:
    """BatchNorm over the last axis, its statistics shared by all devices of `axis_name`.

    `two_passes` takes the variance around the mean instead of E[x²] - E[x]², which loses digits
    where the mean is large beside the spread.

    Parameters and statistics are float32 whatever `dtype` is computed in. Flax keeps the biased
    running variance where PyTorch keeps the unbiased one: with N values a channel they differ by
    the factor N / (N - 1).
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=BATCH_NORM_MOMENTUM,
        epsilon=BATCH_NORM_EPSILON,
        axis_name=axis_name,
        dtype=dtype,
        use_fast_variance=not two_passes,
    )


def average_pool_2x2(x: jax.Array) -> jax.Array:
    """(B, H, W, C) -> (B, H // 2, W // 2, C); an odd last row or column is dropped."""
    height, width = x.shape[1] // 2, x.shape[2] // 2
    x = x[:, : 2 * height, : 2 * width]
    return x.reshape(x.shape[0], height, 2, width, 2, x.shape[3]).mean(axis=(2, 4))


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
            x = nn.Conv(
                self.channels,
                (self.kernel, self.kernel),
                use_bias=False,
                kernel_init=he_uniform,
                dtype=self.dtype,
            )(x)
            x = batch_norm(train, self.axis_name, self.dtype)(x)
            x = nn.relu(x)
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
        # the mean is far from zero.
        x = batch_norm(train, self.axis_name, jnp.float32, two_passes=True)(log_mel)
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
