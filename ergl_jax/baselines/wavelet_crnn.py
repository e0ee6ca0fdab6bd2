"""Wavelet CRNN: convolutions along the scales of a deep scattering spectrum, and two GRU layers.

From its description: the features (scattering of first and second order), three convolutions with
pools along scale for each order, then two recurrent layers. Our interpretation: all sizes,
BatchNorm and ReLU after each convolution, max pools of 4 scales, the mean over time.

Shapes: B clips, F frames, M coefficients, M1 of them of first order, S scenes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.baselines.layers import Baseline, BiGRU, max_pool, narrowed
from ergl_jax.models.layers import BatchNormReLU, Conv, small_uniform
from ergl_jax.models.output import Output


class ScaleConvs(nn.Module):
    """Three times [convolution 3x3 without bias, BatchNorm, ReLU, max pool along scale]."""

    channels: int
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, F, M) -> (B, F, D): the remaining scales, 1 or M // 64, times channels."""
        x = x[..., None]
        for _ in range(3):
            x = Conv(self.channels, dtype=self.dtype)(x)
            x = BatchNormReLU(self.axis_name, self.dtype)(x, train=train)
            x = max_pool(x, 1, min(4, x.shape[2]))
        return x.reshape(*x.shape[:2], -1)


class WaveletCRNN(Baseline):
    """The scene of a clip by its scattering coefficients.

    Attributes:
      first_order: M1, the first columns of the features; 86 of the front end `scattering`.
      dropout: before the scene layer.
    """

    first_order: int = 86
    dropout: float = 0.5

    @nn.compact
    def __call__(self, scattering: jax.Array, *, train: bool) -> Output:
        """Logarithms of coefficients (B, F, M) -> Output with scene logits alone."""
        if not 1 <= self.first_order < scattering.shape[2]:
            raise ValueError(
                f"first_order={self.first_order} of {scattering.shape[2]} scattering coefficients "
                "leaves none of first or none of second order"
            )
        width = narrowed(128, self.width_divisor)  # of all channels and GRUs
        x = self.normalise(scattering)
        orders = jnp.split(x, [self.first_order], axis=2)
        maps = [
            ScaleConvs(width, self.axis_name, self.dtype, name=name)(order, train=train)
            for name, order in zip(("first", "second"), orders, strict=True)
        ]
        x = jnp.concatenate(maps, axis=-1)  # (B, F, D)
        x = BiGRU(width, name="gru0")(x)
        x = BiGRU(width, name="gru1")(x)  # (B, F, 256)
        x = nn.Dropout(self.dropout, deterministic=not train)(x.mean(axis=1))
        return Output(nn.Dense(self.num_scenes, kernel_init=small_uniform, name="scene")(x))
