"""The baseline system of DCASE 2018 task 1 (github.com/DCASE-REPO/dcase2018_baseline, task1).

Layers, sizes, dropout and initialisers are those of the published code. BatchNorm normalises each
frequency row over clips, frames and channels, with Keras' defaults (momentum 0.99, epsilon 1e-3),
as Keras' count shows: 116,022 trained parameters and 96 running statistics for 500 frames, 40 bins
and 10 scenes. Our interpretation: with fewer than 100 frames left, the second pool takes them all.

Shapes: B clips, F frames, M mel bins.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.baselines.layers import Baseline, max_pool, narrowed
from ergl_jax.models.output import Output


def keras_uniform(key: jax.Array, shape: tuple, dtype=jnp.float32) -> jax.Array:
    """Keras' initialiser "uniform": within ±0.05."""
    return jax.random.uniform(key, shape, dtype, -0.05, 0.05)


class DCASE2018(Baseline):
    """Twice [7x7 convolution, BatchNorm by rows, ReLU, max pool, dropout], then two dense layers.

    Attributes:
      dropout: after both pools and before the scene layer.
    """

    dropout: float = 0.3

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) -> Output with scene logits alone."""
        x = self.normalise(log_mel, frames=5, mels=20)[..., None]  # (B, F, M, 1)
        for channels, frames, rows in ((32, 5, 5), (64, 100, 4)):
            x = nn.Conv(
                narrowed(channels, self.width_divisor),
                (7, 7),
                dtype=self.dtype,
                kernel_init=nn.initializers.glorot_uniform(),
            )(x)
            x = nn.BatchNorm(
                use_running_average=not train,
                axis=2,
                momentum=0.99,
                epsilon=1e-3,
                dtype=self.dtype,
                axis_name=self.axis_name,
                use_fast_variance=False,
            )(x)
            x = max_pool(nn.relu(x), frames, rows)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = x.reshape(x.shape[0], -1).astype(jnp.float32)  # (B, 128) of 500 frames and 40 bins
        x = nn.relu(nn.Dense(100, kernel_init=keras_uniform, name="dense")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Output(nn.Dense(self.num_scenes, kernel_init=keras_uniform, name="scene")(x))
