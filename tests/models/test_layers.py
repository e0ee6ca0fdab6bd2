"""The encoders' layers against Flax's, and their types."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ergl_jax.models.layers import BatchNormReLU, Conv

KEY = jax.random.key(0)


class Reference(nn.Module):
    """BatchNorm and ReLU by Flax, the gradient by JAX."""

    @nn.compact
    def __call__(self, x, *, train):
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)
        return nn.relu(norm(x))


def variables(channels):
    """Parameters and statistics that differ in every channel; the first scale is negative."""
    scale, bias, mean, var = jax.random.normal(KEY, (4, channels))
    scale = scale.at[0].set(-0.7)
    return {
        "params": {"scale": scale, "bias": 0.3 * bias},
        "batch_stats": {"mean": mean, "var": 0.5 + var**2},
    }


def run(module, tree, x, weights, train):
    """Output, gradients by parameters and input of its weighted sum, and new statistics."""

    @jax.jit
    @partial(jax.grad, argnums=(0, 1), has_aux=True)
    def gradients(params, x):
        y, changed = module.apply(
            tree | {"params": params}, x, train=train, mutable=["batch_stats"]
        )
        return (y.astype(jnp.float32) * weights).sum(), (y, changed)

    grads, (y, changed) = gradients(tree["params"], x)
    return jax.tree.leaves((y, grads, changed))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("shape", [(4, 7, 6, 5), (16, 3)])
def test_batch_norm_relu_equals_flax(shape, train):
    x, weights = 0.5 + 2.0 * jax.random.normal(KEY, shape), jax.random.normal(KEY, shape)
    tree = variables(shape[-1])
    nested = {name: {"BatchNorm_0": values} for name, values in tree.items()}
    got = run(BatchNormReLU(), tree, x, weights, train)
    want = run(Reference(), nested, x, weights, train)
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


def test_conv_keeps_float32_parameters_and_computes_in_its_dtype():
    x = jax.random.normal(KEY, (2, 8, 8, 16))
    layer = Conv(16, dtype=jnp.bfloat16)
    params = layer.init(KEY, x)["params"]
    assert params["kernel"].dtype == jnp.float32 and params["kernel"].shape == (3, 3, 16, 16)
    y = layer.apply({"params": params}, x)
    assert y.dtype == jnp.bfloat16
    want = nn.Conv(16, (3, 3), use_bias=False).apply({"params": params}, x)
    np.testing.assert_allclose(y.astype(np.float32), want, atol=0.03 * np.abs(want).max())


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="side=2"):
        Conv(4, 2).init(KEY, jnp.zeros((1, 4, 4, 1)))
