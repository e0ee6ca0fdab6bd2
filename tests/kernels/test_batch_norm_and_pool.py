"""BatchNorm with ReLU and the pool equal their references and Flax's, values and gradients."""

from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest

from ergl_jax.kernels.batch_norm import batch_norm_relu, batch_norm_relu_reference
from ergl_jax.kernels.pool import average_pool_2x2, average_pool_2x2_reference


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("devices", [1, 4])
def test_batch_norm_relu(devices):
    """vmap's named axis stands for devices, which normalise the whole batch as one."""
    x, weights = draw(0, 12, 5, 3) ** 3, draw(1, 12, 5, 3)
    scale, bias = draw(2, 3).at[0].set(-0.7), draw(3, 3)

    def grads(function, x, weights, axis_name):
        def loss(x, scale, bias):
            y, mean, var = function(x, scale, bias, axis_name)
            return (y * weights).sum(), (y, mean, var)

        (dx, *rest), (y, *statistics) = jax.grad(loss, (0, 1, 2), has_aux=True)(x, scale, bias)
        return (dx, y), rest, statistics

    parts = [a.reshape(devices, -1, *a.shape[1:]) for a in (x, weights)]
    ours = partial(grads, batch_norm_relu, axis_name="batch")
    split = jax.jit(jax.vmap(ours, axis_name="batch"))(*parts)
    want = jax.jit(partial(grads, batch_norm_relu_reference, axis_name=None))(x, weights)
    close = dict(rtol=1e-4, atol=1e-5)
    for got, whole in zip(split[0], want[0], strict=True):  # dx, y
        np.testing.assert_allclose(got.reshape(whole.shape), whole, **close)
    for got, whole in zip(split[1], want[1], strict=True):  # gradients by scale and bias
        np.testing.assert_allclose(got.sum(0), whole, **close)
    for got, whole in zip(split[2], want[2], strict=True):  # mean and variance
        np.testing.assert_allclose(got, np.tile(whole, (devices, 1)), **close)


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("device", ["cpu", "tpu"])
@pytest.mark.parametrize("shape", [(2, 9, 8, 64), (2, 8, 7, 64), (2, 6, 8, 8), (1, 5, 4, 128)])
def test_forms(shape, device, pool, request):
    """Of each device, with and without a pool, for even and odd sides, folded and not."""
    if device == "tpu":
        request.getfixturevalue("tpu_forms")
    x, channels = draw(0, *shape), shape[-1:]
    scale, bias = draw(2, *channels), draw(3, *channels)

    def grads(function):
        def loss(x, scale, bias):
            y, mean, var = function(x, scale, bias, None, pool)
            return (y * draw(1, *y.shape)).sum(), (y, mean, var)

        return jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(x, scale, bias)

    got, want = grads(batch_norm_relu), grads(batch_norm_relu_reference)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("reference", [average_pool_2x2_reference, "flax"])
@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (2, 5, 7, 3), (1, 2, 3, 1)])
def test_average_pool(shape, reference):
    if reference == "flax":
        reference = lambda x: nn.avg_pool(x, (2, 2), (2, 2))  # noqa: E731
    got, back = jax.vjp(average_pool_2x2, draw(0, *shape))
    want, reference_back = jax.vjp(reference, draw(0, *shape))
    np.testing.assert_allclose(got, want, atol=1e-6)
    dy = draw(1, *got.shape)
    np.testing.assert_allclose(back(dy)[0], reference_back(dy)[0], atol=1e-6)
