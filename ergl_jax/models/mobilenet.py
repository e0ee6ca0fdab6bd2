"""PANNs' small encoder, MobileNetV1 (arXiv 1912.10211).

Shapes: B clips, F frames, M mel bins, C channels, T encoder frames, D encoder channels.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.models.layers import BatchNormReLU, Conv, he_uniform
from ergl_jax.models.panns import Encoder


class MobileNetEncoder(Encoder):
    """A convolution, then depthwise separable ones, each without dropout.

    MobileNet's strides are average pools after the convolution here, as in PANNs' code.
    """

    architecture: str = "mobilenetv1"

    # Channels of each layer, and whether it halves time and frequency.
    ARCHITECTURES: ClassVar[Mapping[str, Any]] = {
        "mobilenetv1": (
            *((32, True), (64, False), (128, True), (128, False), (256, True), (256, False)),
            *((512, True), *5 * ((512, False),), (1024, True), (1024, False)),
        )
    }
    NARROWEST: ClassVar[int] = 32

    @property
    def halvings(self) -> int:
        return 5

    def blocks(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, F, M, 1) -> (B, T, M / 32, D): T = F / 32 and D = 1024 / width_divisor."""
        for number, (channels, pool) in enumerate(self.ARCHITECTURES[self.architecture]):
            kind = ConvLayer if number == 0 else SeparableConv
            layer = kind(
                channels // self.width_divisor,
                pool,
                self.axis_name,
                self.dtype,
                name=f"features_{number}",
            )
            x = layer(x, train=train)
        return x


class ConvLayer(nn.Module):
    """A 3x3 convolution, a 2x2 average pool or none, BatchNorm and ReLU."""

    channels: int
    pool: bool
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, F, M, C) -> (B, F / 2, M / 2, channels), or (B, F, M, channels) without the pool."""
        x = Conv(self.channels, dtype=self.dtype)(x)
        x = nn.avg_pool(x, (2, 2), (2, 2)) if self.pool else x
        return BatchNormReLU(self.axis_name, self.dtype)(x, train=train)


class SeparableConv(ConvLayer):
    """As ConvLayer with a 3x3 kernel for each channel; then 1x1 kernels, BatchNorm and ReLU."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, F, M, C) -> (B, F / 2, M / 2, channels), or (B, F, M, channels) without the pool."""
        x = nn.Conv(
            x.shape[-1],
            (3, 3),
            feature_group_count=x.shape[-1],
            use_bias=False,
            kernel_init=he_uniform,
            dtype=self.dtype,
            name="depthwise",
        )(x)
        x = nn.avg_pool(x, (2, 2), (2, 2)) if self.pool else x
        x = BatchNormReLU(self.axis_name, self.dtype)(x, train=train)
        x = Conv(self.channels, side=1, dtype=self.dtype, name="pointwise")(x)
        return BatchNormReLU(self.axis_name, self.dtype)(x, train=train)
