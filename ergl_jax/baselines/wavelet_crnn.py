"""Wavelet CRNN: a deep scattering spectrum read by convolutions along scale and two GRU layers.

What is certain: the features (scattering of first and second order), that each order has three
convolutions with pools along scale, and two recurrent layers after them. Readings of ours: all
sizes, BatchNorm and ReLU after each convolution, max pools of 4 scales, the mean over time.

Shapes: B clips, F frames, M coefficients, M1 of them of first order, S scenes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.baselines.mtl import BiGRU
from ergl_jax.baselines.normalisation import Standardise
from ergl_jax.baselines.shapes import max_pool, narrowed
from ergl_jax.errors import InputError
from ergl_jax.models.layers import BatchNormReLU, Conv, small_uniform
from ergl_jax.models.output import Output

FIRST_ORDER = 86  # coefficients of first order, which the front end `scattering` has in front
CONVOLUTIONS = 3  # of each order
POOL = 4  # scales, after each convolution


class ScaleConvs(nn.Module):
    """Three times [convolution 3x3 without bias, BatchNorm, ReLU, max pool along scale]."""

    channels: int
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, F, M) -> (B, F, D): what is left of the scales, 1 or M // 64, times channels."""
        x = x[..., None]
        for _ in range(CONVOLUTIONS):
            x = Conv(self.channels, dtype=self.dtype)(x)
            x = BatchNormReLU(self.axis_name, self.dtype)(x, train=train)
            x = max_pool(x, 1, min(POOL, x.shape[2]))
        return x.reshape(*x.shape[:2], -1)


class WaveletCRNN(nn.Module):
    """The scene of a clip by its scattering coefficients.

    Attributes:
      num_scenes: S.
      first_order: M1, how many of the features' columns, from the first, are of first order.
      width_divisor: all channels and recurrent units are divided by this.
      dropout: before the scene layer.
      axis_name: the mapped axis over which BatchNorm shares its statistics.
      dtype: what convolutions are computed in.
    """

    num_scenes: int
    first_order: int = FIRST_ORDER
    width_divisor: int = 1
    dropout: float = 0.5
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, scattering: jax.Array, *, train: bool) -> Output:
        """Logarithms of coefficients (B, F, M) -> Output with scene logits alone."""
        if not 1 <= self.first_order < scattering.shape[2]:
            raise InputError(
                f"first_order={self.first_order} of {scattering.shape[2]} scattering coefficients: "
                "there must be at least one of first and one of second order"
            )
        width = narrowed(128, self.width_divisor)  # of all channels and GRUs
        x = Standardise(name="standardise")(scattering)
        orders = jnp.split(x, [self.first_order], axis=2)
        read = [
            ScaleConvs(width, self.axis_name, self.dtype, name=name)(order, train=train)
            for name, order in zip(("first", "second"), orders, strict=True)
        ]
        x = jnp.concatenate(read, axis=-1)  # (B, F, D)
        x = BiGRU(width, name="gru0")(x)
        x = BiGRU(width, name="gru1")(x)  # (B, F, 256)
        x = nn.Dropout(self.dropout, deterministic=not train)(x.mean(axis=1))
        return Output(nn.Dense(self.num_scenes, kernel_init=small_uniform, name="scene")(x))
