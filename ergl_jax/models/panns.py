"""PANNs' convolutional encoders, Cnn14, Cnn10 and Cnn6, and PANNs themselves (arXiv 1912.10211).

Other PANNs: resnet.py, mobilenet.py, wavegram.py, and decision_level.py, which locates events in
time.

Shapes: B clips, F frames, M mel bins, T encoder frames, D encoder channels, n events.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.kernels.batch_norm import EPSILON
from ergl_jax.models.layers import BATCH_NORM_MOMENTUM, ConvBlock, clip_embedding, he_uniform
from ergl_jax.models.output import Output


class Architecture(NamedTuple):
    """A column of PANNs' table 1."""

    channels: tuple[int, ...]  # of each block
    kernel: int  # side of the square kernels
    convolutions: int  # in each block
    pools: int  # how many blocks, from the first, end in a 2x2 average pool


ARCHITECTURES = {
    "cnn14": Architecture((64, 128, 256, 512, 1024, 2048), kernel=3, convolutions=2, pools=5),
    "cnn10": Architecture((64, 128, 256, 512), kernel=3, convolutions=2, pools=4),
    "cnn6": Architecture((64, 128, 256, 512), kernel=5, convolutions=1, pools=4),
}


class Encoder(nn.Module):
    """A log-mel spectrogram to one vector an encoder frame (§2.1; PANNs, table 1).

    PANNs' other encoders are subclasses, with other `blocks`.

    Attributes:
      architecture: "cnn14", "cnn10" or "cnn6".
      width_divisor: every block has its channels divided by this.
      dropout: rate after each block.
      axis_name: the mapped axis over which BatchNorm shares its statistics.
      dtype: of the convolutions.
      time_pools: how many blocks, from the first, also halve time; None: all that halve frequency.

    Raises ValueError for another architecture, a width_divisor that does not divide the channels,
    and inputs too short for its pools.
    """

    architecture: str = "cnn14"
    width_divisor: int = 1
    dropout: float = 0.2
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32
    time_pools: int | None = None

    ARCHITECTURES: ClassVar[Mapping[str, Any]] = ARCHITECTURES
    NARROWEST: ClassVar[int] = 64  # channels; all others are multiples of these

    @property
    def halvings(self) -> int:
        """How often frequency is halved, and time too without `time_pools`."""
        return ARCHITECTURES[self.architecture].pools

    @property
    def frames_per_step(self) -> int:
        """Frames of the log-mel in one encoder frame."""
        return 2**self._time_halvings

    @property
    def _time_halvings(self) -> int:
        return self.halvings if self.time_pools is None else min(self.time_pools, self.halvings)

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> jax.Array:
        """(B, F, M) in dB -> (B, T, D): T = F / 32 and D = 2048 / width_divisor for Cnn14."""
        self._check(log_mel)
        x = self.blocks(self._normalise(log_mel, train), train=train)
        return x.mean(axis=2)  # over frequency: (B, T, D)

    def _normalise(self, log_mel: jax.Array, train: bool) -> jax.Array:
        """(B, F, M) -> (B, F, M, 1)."""
        # One mean, variance, scale and offset for each mel bin: M is the channel axis here. In dB
        # the mean is far from zero, where E[x²] - E[x]² loses digits.
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=BATCH_NORM_MOMENTUM,
            epsilon=EPSILON,
            axis_name=self.axis_name,
            use_fast_variance=False,
        )(log_mel)
        return x[..., None].astype(self.dtype)

    def blocks(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, F, M, 1) -> (B, T, M / 2^halvings, D), T = F / frames_per_step."""
        spec = ARCHITECTURES[self.architecture]
        for block, channels in enumerate(spec.channels):
            x = ConvBlock(
                channels // self.width_divisor,
                kernel=spec.kernel,
                convolutions=spec.convolutions,
                pool=block < self._time_halvings,
                axis_name=self.axis_name,
                dtype=self.dtype,
            )(x, train=train)  # F and M halved by each pool
            if self._time_halvings <= block < spec.pools:
                x = nn.avg_pool(x, (1, 2), (1, 2))  # M alone
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return x

    def _check(self, log_mel: jax.Array) -> None:
        name, divisor = self.architecture, self.width_divisor
        if name not in self.ARCHITECTURES:
            raise ValueError(
                f"architecture={name!r} is not one of: {', '.join(self.ARCHITECTURES)}"
            )
        if log_mel.ndim != 3:
            raise ValueError(f"log_mel must be (clips, frames, mel bins), not {log_mel.shape}")
        frames, bins = self.frames_per_step, 2**self.halvings
        if log_mel.shape[1] < frames or log_mel.shape[2] < bins:
            raise ValueError(
                f"{name} needs at least {frames} frames and {bins} mel bins, since it halves them, "
                f"not {log_mel.shape[1:]}: use longer clips"
            )
        if self.time_pools is not None and name not in ARCHITECTURES:
            raise ValueError(
                f"time_pools={self.time_pools} is for {', '.join(ARCHITECTURES)} alone"
            )
        if self.NARROWEST % divisor:
            raise ValueError(
                f"width_divisor={divisor} does not divide the {self.NARROWEST} channels of {name}"
            )


class PANN(nn.Module):
    """A PANN: encoder, max plus mean over time, fc1, fc_audioset, by their published names.

    It tags events and has no scenes.
    """

    num_events: int
    encoder: Encoder
    dropout: float = 0.5

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) in dB -> Output with event logits (B, n) and the embedding (B, D)."""
        h = self.encoder(log_mel, train=train)  # (B, T, D)
        embedding = clip_embedding(h, dropout=self.dropout, train=train, name="fc1")  # (B, D)
        z = nn.Dropout(self.dropout, deterministic=not train)(embedding)
        event_logits = nn.Dense(self.num_events, kernel_init=he_uniform, name="fc_audioset")(z)
        return Output(None, event_logits, embedding=embedding)
