"""The "CNN from Surrey": Kong et al.'s VGG-like system (github.com/qiuqiangkong/dcase2018_task1).

Layers, sizes and initialisation are those of the published code; there is no dropout.

Shapes: B clips, F frames, M mel bins, C channels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.baselines.layers import Baseline, MaxPooledBlocks, max_pool
from ergl_jax.models.layers import he_uniform
from ergl_jax.models.output import Output


class SurreyCNN(Baseline):
    """Four blocks of two 3x3 convolutions, the maximum over time and frequency, the scene layer."""

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) -> Output with scene logits alone."""
        x = self.normalise(log_mel, frames=16, mels=16)
        x = MaxPooledBlocks(3, 2, self.width_divisor, self.axis_name, self.dtype, name="blocks")(
            x, train=train
        )
        x = max_pool(x, *x.shape[1:3])[:, 0, 0].astype(jnp.float32)  # (B, C)
        return Output(nn.Dense(self.num_scenes, kernel_init=he_uniform, name="scene")(x))
