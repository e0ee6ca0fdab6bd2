"""PANNs' residual encoders, ResNet22 and ResNet38 (arXiv 1912.10211).

Shapes: B clips, F frames, M mel bins, C channels, T encoder frames, D encoder channels.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.kernels.batch_norm import EPSILON
from ergl_jax.models.layers import BATCH_NORM_MOMENTUM, BatchNormReLU, Conv, ConvBlock
from ergl_jax.models.panns import Encoder


class ResNetEncoder(Encoder):
    """A convolutional block, four stages of residual blocks, and a wide convolutional block.

    Attributes:
      architecture: "resnet22" or "resnet38".
      dropout: rate after both convolutional blocks' pools; half of it within residual blocks.
    """

    architecture: str = "resnet38"

    # Residual blocks of each stage. The first block of stages 2 to 4 halves time and frequency.
    ARCHITECTURES: ClassVar[Mapping[str, Any]] = {
        "resnet22": (2, 2, 2, 2),
        "resnet38": (3, 4, 6, 3),
    }

    @property
    def halvings(self) -> int:
        return 5

    def blocks(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, F, M, 1) -> (B, T, M / 32, D): T = F / 32 and D = 2048 / width_divisor."""
        mapped: dict = {"axis_name": self.axis_name, "dtype": self.dtype}
        drop = nn.Dropout(self.dropout, deterministic=not train)
        x = drop(ConvBlock(64 // self.width_divisor, **mapped)(x, train=train))
        for stage, number in enumerate(self.ARCHITECTURES[self.architecture]):
            channels = 64 * 2**stage // self.width_divisor
            for block in range(number):
                pool = stage > 0 and block == 0
                name = f"layer{stage + 1}_{block}"
                x = ResidualBlock(channels, pool, self.dropout / 2, name=name, **mapped)(
                    x, train=train
                )
        x = drop(nn.avg_pool(x, (2, 2), (2, 2)))  # (B, F / 32, M / 32, 512)
        after = ConvBlock(2048 // self.width_divisor, pool=False, **mapped, name="after")
        return drop(after(x, train=train))


class ResidualBlock(nn.Module):
    """ReLU(x + two convolutions of x), both of an average pool of x where it halves.

    Where the number of channels changes too, x is convolved by a 1x1 kernel.
    """

    channels: int
    pool: bool
    dropout: float
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, F, M, C) -> (B, F / 2, M / 2, channels), or (B, F, M, channels) without the pool."""
        if self.pool:
            x = nn.avg_pool(x, (2, 2), (2, 2))
        y = Conv(self.channels, dtype=self.dtype)(x)
        y = BatchNormReLU(self.axis_name, self.dtype)(y, train=train)
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        # A scale of zero at first: training begins with the identity.
        y = self._norm(nn.initializers.zeros, train)(Conv(self.channels, dtype=self.dtype)(y))
        if x.shape[-1] != self.channels:
            shortcut = Conv(self.channels, side=1, dtype=self.dtype, name="shortcut")(x)
            x = self._norm(nn.initializers.ones, train, name="shortcut_norm")(shortcut)
        return nn.relu(x + y).astype(self.dtype)

    def _norm(self, scale_init: nn.initializers.Initializer, train: bool, **name) -> nn.BatchNorm:
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=BATCH_NORM_MOMENTUM,
            epsilon=EPSILON,
            axis_name=self.axis_name,
            use_fast_variance=False,
            scale_init=scale_init,
            **name,
        )
