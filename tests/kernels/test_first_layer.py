"""The first convolution with BatchNorm and ReLU equals these one after another."""

from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest

from ergl_jax.kernels.batch_norm import batch_norm_relu_reference
from ergl_jax.kernels.convolution import convolve_reference
from ergl_jax.kernels.first_layer import convolve_batch_norm_relu
from ergl_jax.models.layers import ConvBlock

BATCH, FRAMES, MELS, CHANNELS = 8, 13, 6, 5


def reference(x, kernel, scale, bias, axis_name):
    return batch_norm_relu_reference(convolve_reference(x, kernel), scale, bias, axis_name)


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_convolve_batch_norm_relu(device, side, devices, request):
    """Values, gradients, mean and variance; vmap's named axis stands for devices."""
    keys = jax.random.split(jax.random.key(0), 5)
    x = 0.5 + jax.random.normal(keys[0], (BATCH, FRAMES, MELS, 1)).cumsum(1)  # neighbours are alike
    weights = jax.random.normal(keys[1], (BATCH, FRAMES, MELS, CHANNELS))
    kernel = jax.random.normal(keys[2], (side, side, 1, CHANNELS))
    scale = jax.random.normal(keys[3], (CHANNELS,)).at[0].set(-0.7).at[1].set(0.0)
    bias = jax.random.normal(keys[4], (CHANNELS,)).at[1].set(0.4)

    def grads(function, x, weights, axis_name):
        def loss(x, *parameters):
            y, mean, var = function(x, *parameters, axis_name)
            return (y * weights).sum(), (y, mean, var)

        arguments = (x, kernel, scale, bias)
        (dx, *rest), (y, *statistics) = jax.grad(loss, (0, 1, 2, 3), has_aux=True)(*arguments)
        return (dx, y), rest, statistics

    want = jax.jit(partial(grads, reference, axis_name=None))(x, weights)
    if device == "gpu":
        request.getfixturevalue("gpu_forms")
    parts = [a.reshape(devices, -1, *a.shape[1:]) for a in (x, weights)]
    ours = partial(grads, convolve_batch_norm_relu, axis_name="batch")
    got = jax.jit(jax.vmap(ours, axis_name="batch"))(*parts)

    def check(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())

    for a, whole in zip(got[0], want[0], strict=True):  # by x, and the output
        check(a.reshape(whole.shape), whole)
    for a, whole in zip(got[1], want[1], strict=True):  # by the parameters
        check(a.sum(0), whole)
    for a, whole in zip(got[2], want[2], strict=True):  # mean and variance
        check(a, np.tile(whole, (devices, 1)))


class FlaxBlock(nn.Module):
    """`ConvBlock` of Flax's layers, by the same names."""

    @nn.compact
    def __call__(self, x, *, train):
        for i in range(2):
            x = nn.Conv(CHANNELS, (3, 3), use_bias=False, name=f"Conv_{i}")(x)
            x = nn.BatchNorm(
                use_running_average=not train,
                momentum=0.9,
                axis_name="batch",
                name=f"BatchNormReLU_{i}",
            )(x)
            x = nn.relu(x)
        return nn.avg_pool(x, (2, 2), (2, 2))


def test_a_block_equals_flax(gpu_forms):
    """Its output, gradients and running averages, on four devices."""
    x = 0.5 + jax.random.normal(jax.random.key(0), (4, 2, FRAMES, MELS, 1)).cumsum(2)
    variables = jax.jit(partial(FlaxBlock().init, train=False))(jax.random.key(1), x[0])

    def step(block, x):
        def loss(params, x):
            y, changed = block.apply(
                variables | {"params": params}, x, train=True, mutable=["batch_stats"]
            )
            return (y**3).mean(), (y, changed)

        grads, (y, changed) = jax.grad(loss, (0, 1), has_aux=True)(variables["params"], x)
        return y, grads, jax.lax.pmean(changed, "batch")

    block = ConvBlock(CHANNELS, axis_name="batch")
    ours = jax.eval_shape(partial(block.init, train=False), jax.random.key(1), x[0])
    assert jax.tree.structure(ours) == jax.tree.structure(variables)
    got, want = (
        jax.jit(jax.vmap(partial(step, each), axis_name="batch"))(x)
        for each in (block, FlaxBlock())
    )
    # A parameter's gradient is the mean over devices: one device's depends on who averages what.
    (y, (params, dx), stats), (want_y, (want_params, want_dx), want_stats) = got, want
    mean = partial(jax.tree.map, lambda a: a.mean(0))
    pairs = (y, mean(params), dx, stats), (want_y, mean(want_params), want_dx, want_stats)
    for a, b in zip(*map(jax.tree.leaves, pairs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())
