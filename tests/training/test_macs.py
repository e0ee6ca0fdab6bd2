"""Multiply-accumulates against closed forms."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ergl_jax.models.layers import Conv
from ergl_jax.models.panns import Encoder
from ergl_jax.training import macs


class Wrapped(nn.Module):
    """A module that is called as models are."""

    inner: nn.Module
    of: str = "frames"  # or "map": (B, F, M, 1)

    @nn.compact
    def __call__(self, log_mel, *, train):
        return self.inner(log_mel[..., None] if self.of == "map" else log_mel)


def count(model, shape):
    variables = jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False), jnp.zeros((1, *shape))
    )
    return macs.count(model, variables, shape)


def test_a_dense_layer():
    assert count(Wrapped(nn.Dense(7)), (10, 6)) == 10 * 6 * 7


@pytest.mark.parametrize(("strides", "groups", "size"), [(1, 1, 12), (2, 1, 6), (1, 4, 12)])
def test_a_convolution(strides, groups, size):
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(8, (3, 5))(x)
            return nn.Conv(4, (3, 3), strides, feature_group_count=groups)(x)

    first = 12 * 12 * 15 * 8
    assert count(Wrapped(Two(), "map"), (12, 12)) == first + size**2 * 9 * (8 // groups) * 4


def test_a_layer_that_repeats_along_time_counts_each_time():
    """A GRU: three products with the input, three with the state."""
    assert count(Wrapped(nn.RNN(nn.GRUCell(5))), (20, 3)) == 20 * 3 * (3 * 5 + 5 * 5)


def test_attention():
    class Attention(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.softmax(jnp.einsum("btc,bsc->bts", x, x)) @ x

    assert count(Wrapped(Attention()), (9, 4)) == 2 * 9 * 9 * 4


def test_how_a_platform_computes_does_not_count():
    """On CPU a narrow layer is laid out wider, with zeros: see models/convolution.py."""
    assert count(Wrapped(Conv(2), "map"), (16, 8)) == 16 * 8 * 9 * 2


def test_an_encoder():
    """Cnn6: one 5x5 convolution a block, each on a quarter of the pixels of the one before."""

    class Model(nn.Module):
        @nn.compact
        def __call__(self, log_mel, *, train):
            return Encoder("cnn6", width_divisor=8)(log_mel, train=train)

    channels, pixels = (1, 8, 16, 32, 64), 64 * 32
    expected = sum(
        pixels // 4**i * 25 * channels[i] * channels[i + 1] for i in range(len(channels) - 1)
    )
    assert count(Model(), (64, 32)) == expected


def test_nothing_is_computed():
    """Shapes will do, of a model that no machine holds."""
    shape = jax.ShapeDtypeStruct((10**6, 10**6), np.float32)
    variables = {"params": {"inner": {"kernel": shape, "bias": shape.update(shape=(10**6,))}}}
    assert macs.count(Wrapped(nn.Dense(10**6)), variables, (1, 10**6)) == 10**12
