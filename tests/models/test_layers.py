"""BatchNorm with ReLU and the pool, against Flax and JAX's own derivatives."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ergl_jax.kernels.batch_norm import batch_norm_relu
from ergl_jax.kernels.pool import average_pool_2x2
from ergl_jax.models.layers import BatchNormReLU

KEY = jax.random.key(0)


class Reference(nn.Module):
    """The same by Flax, its gradient by JAX."""

    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, *, train):
        norm = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            axis_name=self.axis_name,
            dtype=self.dtype,
        )
        return nn.relu(norm(x))


def variables(channels):
    """Parameters and statistics that differ in every channel; the first scale is negative."""
    scale, bias, mean, var = jax.random.normal(KEY, (4, channels))
    scale = scale.at[0].set(-0.7)
    return {
        "params": {"scale": scale, "bias": 0.3 * bias},
        "batch_stats": {"mean": mean, "var": 0.5 + var**2},
    }


def nested(tree):
    return {name: {"BatchNorm_0": values} for name, values in tree.items()}


def run(module, tree, x, weights, train):
    """Output, gradients by parameters and input of its weighted sum, and new statistics."""

    def loss(params, x):
        y, changed = module.apply(
            tree | {"params": params}, x, train=train, mutable=["batch_stats"]
        )
        return (y.astype(jnp.float32) * weights).sum(), (y, changed)

    grads, (y, changed) = jax.grad(loss, argnums=(0, 1), has_aux=True)(tree["params"], x)
    return jax.tree.leaves((y, grads, changed))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("shape", [(4, 7, 6, 5), (3, 4, 4, 8), (16, 3)])
def test_batch_norm_relu_equals_flax(shape, train):
    x_key, weight_key = jax.random.split(KEY)
    x = 0.5 + 2.0 * jax.random.normal(x_key, shape)
    weights = jax.random.normal(weight_key, shape)
    tree = variables(shape[-1])
    got = run(BatchNormReLU(), tree, x, weights, train)
    want = run(Reference(), nested(tree), x, weights, train)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * np.abs(b).max())


def test_half_precision_keeps_statistics_and_parameters_in_float32():
    x = 3.0 + jax.random.normal(KEY, (8, 16, 4)).astype(jnp.bfloat16)
    weights, tree = jax.random.normal(jax.random.key(1), x.shape), variables(4)
    got = run(BatchNormReLU(dtype=jnp.bfloat16), tree, x, weights, True)
    want = run(BatchNormReLU(), tree, x.astype(jnp.float32), weights, True)
    types = [a.dtype for a in got]
    assert types == [jnp.bfloat16, *[jnp.float32] * 2, jnp.bfloat16, *[jnp.float32] * 2]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a.astype(np.float32), b, rtol=0.02, atol=0.02 * np.abs(b).max())


def test_devices_share_statistics_and_gradients():
    # vmap's named axis stands for devices: the whole batch is normalised as one.
    x_key, weight_key = jax.random.split(KEY)
    x, weights = (
        jax.random.normal(x_key, (12, 5, 3)) ** 3,
        jax.random.normal(weight_key, (12, 5, 3)),
    )
    scale, bias = variables(3)["params"].values()

    def grads(x, weights, axis_name):
        def loss(x, scale, bias):
            y, mean, var = batch_norm_relu(x, scale, bias, axis_name)
            return (y * weights).sum(), (mean, var)

        return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(x, scale, bias)

    (dx, dscale, dbias), (mean, var) = grads(x, weights, None)
    parts = jax.vmap(lambda x, w: grads(x, w, "batch"), axis_name="batch")(
        x.reshape(4, 3, 5, 3), weights.reshape(4, 3, 5, 3)
    )
    (dxs, dscales, dbiases), (means, vars) = parts
    close = dict(rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dxs.reshape(dx.shape), dx, **close)
    np.testing.assert_allclose(dscales.sum(0), dscale, **close)
    np.testing.assert_allclose(dbiases.sum(0), dbias, **close)
    for device in range(4):
        np.testing.assert_allclose(means[device], mean, **close)
        np.testing.assert_allclose(vars[device], var, **close)


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (2, 5, 7, 3), (1, 2, 3, 1)])
def test_average_pool_equals_flax(shape):
    x = jax.random.normal(KEY, shape)
    got, back = jax.vjp(average_pool_2x2, x)
    want, reference = jax.vjp(lambda x: nn.avg_pool(x, (2, 2), (2, 2)), x)
    assert got.shape == (shape[0], shape[1] // 2, shape[2] // 2, shape[3])
    np.testing.assert_allclose(got, want, atol=1e-6)
    dy = jax.random.normal(jax.random.key(1), got.shape)
    np.testing.assert_allclose(back(dy)[0], reference(dy)[0], atol=1e-6)
