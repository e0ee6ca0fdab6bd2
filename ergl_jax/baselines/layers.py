"""Layers that several of the compared systems share.

Shapes: B clips, F frames, M mel bins, C channels, S scenes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.models.layers import BatchNormReLU
from ergl_jax.models.panns import ConvBlock

# PyTorch's default for kernels: uniform in ±1/sqrt(fan_in).
pytorch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class NormaliseBands(nn.Module):
    """(x - mean) / std of each band.

    Training measures both over the training split before the first step; then they are fixed. They
    are among the running statistics, so that a bundle holds them.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, F, M) -> (B, F, M)."""
        bands = x.shape[-1:]
        # Saved bundles have these variables under "standardise", the name that every model gives
        # this module, as "mean" and "deviation".
        mean = self.variable("batch_stats", "mean", jnp.zeros, bands)
        std = self.variable("batch_stats", "deviation", jnp.ones, bands)
        return (x - mean.value) / std.value


class Baseline(nn.Module):
    """The fields that all compared systems with layers of their own have.

    Attributes:
      num_scenes: S.
      width_divisor: all channels and hidden units are divided by this.
      axis_name: the mapped axis over which BatchNorm shares its statistics.
      dtype: of the convolutions.
    """

    num_scenes: int
    width_divisor: int = 1
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    def normalise(self, x: jax.Array, *, frames: int = 1, mels: int = 1) -> jax.Array:
        """(B, F, M) with its bands normalised; see `check_input`."""
        check_input(x, frames=frames, mels=mels)
        return NormaliseBands(name="standardise")(x)


def narrowed(channels: int, width_divisor: int) -> int:
    """channels / width_divisor; a ValueError unless that is a whole number."""
    if channels % width_divisor:
        raise ValueError(f"width_divisor={width_divisor} does not divide {channels} channels")
    return channels // width_divisor


def check_input(x: jax.Array, *, frames: int, mels: int) -> None:
    """A ValueError unless x (B, F, M) has at least so many frames and mel bins."""
    if x.shape[1] < frames or x.shape[2] < mels:
        raise ValueError(
            f"{x.shape[1]} frames and {x.shape[2]} mel bins are too few: the model needs at least "
            f"{frames} frames and {mels} mel bins"
        )


def max_pool(x: jax.Array, time: int, frequency: int) -> jax.Array:
    """(B, F, M, C) -> (B, F // time, M // frequency, C), remainders dropped.

    Fewer than `time` frames, as in short clips, are one pool.
    """
    window = (min(time, x.shape[1]), frequency)
    return nn.max_pool(x, window, strides=window)


class BiGRU(nn.Module):
    """One GRU forwards and one backwards in time, in float32."""

    units: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, F, M, C) -> (B, F, 2 units); M and C of a frame are flattened to one vector."""
        x = x.reshape(*x.shape[:2], -1).astype(jnp.float32)
        forwards, backwards = (nn.RNN(nn.GRUCell(self.units)) for _ in range(2))
        return nn.Bidirectional(forwards, backwards)(x)  # type: ignore[return-value]


class MaxPooledBlocks(nn.Module):
    """Surrey's and ABCNN's four blocks of 64 to 512 channels, a 2x2 max pool after each."""

    kernel: int
    convolutions: int  # of each block
    width_divisor: int = 1
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, F, M) -> (B, F / 16, M / 16, 512 / width_divisor)."""
        x = x[..., None]
        for channels in (64, 128, 256, 512):
            x = ConvBlock(
                narrowed(channels, self.width_divisor),
                kernel=self.kernel,
                convolutions=self.convolutions,
                pool=False,
                axis_name=self.axis_name,
                dtype=self.dtype,
            )(x, train=train)
            x = max_pool(x, 2, 2)
        return x


class PooledConv(nn.Module):
    """3x3 convolution with bias, BatchNorm, ReLU, max pool over `pool` = (frames, bins)."""

    channels: int
    pool: tuple[int, int]
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, F, M, C) -> (B, F / frames, M / bins, channels)."""
        x = nn.Conv(self.channels, (3, 3), dtype=self.dtype, kernel_init=pytorch_uniform)(x)
        return max_pool(BatchNormReLU(self.axis_name, self.dtype)(x, train=train), *self.pool)


class Backbone(nn.Module):
    """MTL's three convolutions, which events and scenes share."""

    width_divisor: int = 1
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalised log-mel (B, F, M) -> (B, F, M / 32, 128 / width_divisor)."""
        x = x[..., None]
        channels = narrowed(128, self.width_divisor)
        for bins in (8, 2, 2):
            x = PooledConv(channels, (1, bins), self.axis_name, self.dtype)(x, train=train)
        return x


class SceneHead(Baseline):
    """MTL's scene head: two more convolutions, pooled to one frame, and two dense layers."""

    dropout: float = 0.15

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Map of `Backbone` -> scene logits (B, S)."""
        channels = narrowed(256, self.width_divisor)
        for frames in (25, 20):
            x = PooledConv(channels, (frames, 1), self.axis_name, self.dtype)(x, train=train)
        x = x.reshape(x.shape[0], -1).astype(jnp.float32)  # (B, 512) of 500 frames and 64 bins
        units = narrowed(32, self.width_divisor)
        x = nn.relu(nn.Dense(units, kernel_init=pytorch_uniform, name="dense")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_scenes, kernel_init=pytorch_uniform, name="scene")(x)


class TwoHeads(Baseline, kw_only=True):
    """What MTL and Conditional share: backbone, scene head and the start of the event head.

    Attributes:
      num_events: n.
      dropout: before the last layer of both heads.
    """

    num_events: int
    dropout: float = 0.15

    def heads(self, log_mel: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """(B, F, M) -> scene logits (B, S), and the events' hidden layer before ReLU (B, F, H).

        For use within a module's compact method.
        """
        mapped = (self.axis_name, self.dtype)
        x = self.normalise(log_mel, mels=32)
        x = Backbone(self.width_divisor, *mapped, name="backbone")(x, train=train)
        head = SceneHead(
            self.num_scenes, self.width_divisor, *mapped, self.dropout, name="scene_head"
        )
        scene_logits = head(x, train=train)
        h = BiGRU(narrowed(64, self.width_divisor), name="gru")(x)
        units = narrowed(32, self.width_divisor)
        return scene_logits, nn.Dense(units, kernel_init=pytorch_uniform, name="event_dense")(h)
