"""The "CNN from Surrey": Kong et al.'s VGG-like system (github.com/qiuqiangkong/dcase2018_task1).

Certain, from its published code: layers, sizes and initialisation; there is no dropout.

Shapes: B clips, F frames, M mel bins, C channels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.baselines.normalisation import Standardise
from ergl_jax.baselines.shapes import check_input, max_pool, narrowed
from ergl_jax.models.layers import he_uniform
from ergl_jax.models.output import Output
from ergl_jax.models.panns import ConvBlock

CHANNELS = (64, 128, 256, 512)


class MaxPooledBlocks(nn.Module):
    """Four blocks of 64 to 512 channels, a 2x2 max pool after each.

    Attributes:
      kernel, convolutions: of each block.
      width_divisor, axis_name, dtype: as of `SurreyCNN`.
    """

    kernel: int
    convolutions: int
    width_divisor: int = 1
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, F, M) -> (B, F / 16, M / 16, 512 / width_divisor)."""
        x = x[..., None]
        for channels in CHANNELS:
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


class SurreyCNN(nn.Module):
    """Four blocks of two 3x3 convolutions, the maximum over time and frequency, the scene layer.

    Attributes:
      num_scenes: the classes.
      width_divisor: every block has its channels divided by this.
      axis_name: the mapped axis over which BatchNorm shares its statistics.
      dtype: what convolutions are computed in.
    """

    num_scenes: int
    width_divisor: int = 1
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) -> Output with scene logits alone."""
        check_input("SurreyCNN", log_mel, frames=16, mels=16)
        x = Standardise(name="standardise")(log_mel)
        x = MaxPooledBlocks(3, 2, self.width_divisor, self.axis_name, self.dtype, name="blocks")(
            x, train=train
        )
        x = max_pool(x, *x.shape[1:3])[:, 0, 0].astype(jnp.float32)  # (B, C)
        return Output(nn.Dense(self.num_scenes, kernel_init=he_uniform, name="scene")(x))
