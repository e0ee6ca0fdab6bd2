"""PANNs' encoder of log-mel and waveform, Wavegram_Logmel_Cnn14 (arXiv 1912.10211).

Shapes: B clips, F frames, M mel bins, C channels, T encoder frames, D encoder channels.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.models.layers import BatchNormReLU, ConvBlock, he_uniform
from ergl_jax.models.panns import ARCHITECTURES, Encoder

HOP = 320  # samples of the waveform in a frame; one-dimensional layers make a vector of them
BINS = 32  # that this vector's channels are divided into, as many as half of 64 mel bins


class WavegramEncoder(Encoder):
    """Cnn14 whose second block also sees a wavegram, which layers make of the waveform.

    Its input is the front end `panns_wavegram`: a log-mel with the waveform beside it.
    """

    architecture: str = "wavegram_logmel_cnn14"

    ARCHITECTURES: ClassVar[Mapping[str, Any]] = {"wavegram_logmel_cnn14": ARCHITECTURES["cnn14"]}
    NARROWEST: ClassVar[int] = 4  # channels of the wavegram

    @property
    def halvings(self) -> int:
        return 5

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        """(B, F, M + 320) -> (B, T, D): log-mel in dB, and the samples from each frame's centre on.

        The last frame's samples are zeros or part of a hop, and are left out.
        """
        log_mel = features[..., : features.shape[-1] - HOP]
        if log_mel.shape[-1] != 2 * BINS:
            raise ValueError(
                f"{self.architecture} needs {2 * BINS} mel bins and {HOP} samples a frame, not "
                f"{features.shape[-1]} features: use the front end panns_wavegram"
            )
        self._check(log_mel)
        first, *others = ARCHITECTURES["cnn14"].channels
        x = self._block(first, True)(self._normalise(log_mel, train), train=train)
        waveform = features[:, :-1, -HOP:].reshape(len(features), -1, 1)
        wavegram = self._wavegram(waveform.astype(self.dtype), train)
        frames = min(x.shape[1], wavegram.shape[1])  # the waveform lacks the last frame
        x = jnp.concatenate([x[:, :frames], wavegram[:, :frames]], axis=-1)
        for block, channels in enumerate(others, 2):
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = self._block(channels, pool=block < 6)(x, train=train)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return x.mean(axis=2)

    def _block(self, channels: int, pool: bool, **name) -> ConvBlock:
        mapped: dict = {"axis_name": self.axis_name, "dtype": self.dtype}
        return ConvBlock(channels // self.width_divisor, pool=pool, **mapped, **name)

    def _wavegram(self, x: jax.Array, train: bool) -> jax.Array:
        """Waveform (B, 320 N, 1) -> (B, N / 2, 32, 64 / width_divisor)."""
        channels = 64 // self.width_divisor
        conv = nn.Conv(
            channels,
            (11,),
            strides=5,
            padding=5,
            use_bias=False,
            kernel_init=he_uniform,
            dtype=self.dtype,
            name="pre_conv0",
        )
        x = BatchNormReLU(self.axis_name, self.dtype, name="pre_bn0")(conv(x), train=train)
        for block, width in enumerate((channels, 2 * channels, 2 * channels), 1):
            x = WaveBlock(width, self.axis_name, self.dtype, name=f"pre_block{block}")(
                x, train=train
            )
        x = x.reshape(*x.shape[:2], -1, BINS).swapaxes(2, 3)  # (B, N, 32, 4 / width_divisor)
        x = self._block(64, False, name="pre_block4")(x, train=train)
        return nn.avg_pool(x, (2, 1), (2, 1))


class WaveBlock(nn.Module):
    """[convolution over time, BatchNorm, ReLU] twice, then the maximum of each four samples."""

    channels: int
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, L, C) -> (B, L / 4, channels)."""
        for dilation in (1, 2):
            x = nn.Conv(
                self.channels,
                (3,),
                kernel_dilation=dilation,
                use_bias=False,
                kernel_init=he_uniform,
                dtype=self.dtype,
            )(x)
            x = BatchNormReLU(self.axis_name, self.dtype)(x, train=train)
        return nn.max_pool(x, (4,), (4,))
