"""Multiply-accumulates against closed forms."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ergl_jax.models.layers import Conv
from ergl_jax.models.panns import Encoder
from ergl_jax.training import macs


class Model(nn.Module):
    """Calls a module as models are called."""

    make: Callable[[], nn.Module]
    channel: bool = False  # adds one: (B, F, M, 1)

    @nn.compact
    def __call__(self, log_mel, *, train):
        return self.make()(log_mel[..., None] if self.channel else log_mel)


class Attention(nn.Module):
    def __call__(self, x):
        return nn.softmax(jnp.einsum("btc,bsc->bts", x, x)) @ x


def cnn6():
    return lambda x: Encoder("cnn6", width_divisor=8)(x, train=False)


def conv(channels, *args, **kwargs):
    return Model(lambda: nn.Conv(channels, *args, **kwargs), channel=True)


# Cnn6 has one 5x5 convolution a block, each on a quarter of the pixels of the one before.
CNN6 = sum(
    2048 // 4**i * 25 * a * b for i, (a, b) in enumerate([(1, 8), (8, 16), (16, 32), (32, 64)])
)


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (Model(lambda: nn.Dense(7)), (10, 6), 10 * 6 * 7),
        (conv(8, (3, 5)), (12, 12), 12 * 12 * 15 * 8),
        (conv(4, (3, 3), 2), (12, 12), 6 * 6 * 9 * 4),
        (Model(lambda: nn.Conv(8, (3,), feature_group_count=4)), (10, 4), 10 * 3 * 8),
        # A GRU: three products with the input, three with the state, at each of 20 steps.
        (Model(lambda: nn.RNN(nn.GRUCell(5))), (20, 3), 20 * 3 * (3 * 5 + 5 * 5)),
        (Model(Attention), (9, 4), 2 * 9 * 9 * 4),
        # On CPU a narrow layer is computed as a wider one, with zeros (kernels/convolution.py).
        (Model(lambda: Conv(2), channel=True), (16, 8), 16 * 8 * 9 * 2),
        (Model(cnn6), (64, 32), CNN6),
    ],
)
def test_macs_of_layers(model, shape, expected):
    clip = jnp.zeros((1, *shape))
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), clip)
    assert macs.count(model, variables, shape) == expected


def test_nothing_is_computed():
    """Shapes are enough, of a model that fits no machine."""
    side = 10**6
    kernel = jax.ShapeDtypeStruct((side, side), np.float32)
    variables = {"params": {"Dense_0": {"kernel": kernel, "bias": kernel.update(shape=(side,))}}}
    assert macs.count(Model(lambda: nn.Dense(side)), variables, (1, side)) == side**2
