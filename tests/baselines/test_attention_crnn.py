"""The CRNN with self-attention: its parts against their equations."""

import jax
import numpy as np
from made_systems import KEY, features

from ergl_jax.baselines.attention_crnn import SelfAttention, attention_pool


def softmax(x, axis=-1):
    x = np.exp(x - x.max(axis=axis, keepdims=True))
    return x / x.sum(axis=axis, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_attention_over_time_equals_its_equation():
    h = features(2, 5, 6)
    attention = SelfAttention()
    variables = jax.jit(lambda: attention.init(KEY, h))()
    q, k, v = (np.asarray(variables["params"][name]["kernel"], np.float64) for name in "qkv")
    weights = softmax(h @ q @ (h @ k).swapaxes(1, 2) / np.sqrt(6))
    found = attention.apply(variables, h)
    np.testing.assert_allclose(found, h + weights @ (h @ v), rtol=1e-4, atol=1e-5)


def test_pooling_is_the_quotient_of_weighted_means():
    c, a = features(2, 3, 7, 4)
    want = (sigmoid(a) * softmax(c)).sum(axis=1) / sigmoid(a).sum(axis=1)
    np.testing.assert_allclose(np.exp(attention_pool(c, a)), want, rtol=1e-5)
    # Weights that are the same for all scenes leave a distribution.
    shared = np.exp(attention_pool(c, a[..., :1]))
    np.testing.assert_allclose(shared.sum(axis=-1), 1, rtol=1e-5)
    # A frame with the only weight decides alone.
    alone = np.where(np.arange(7)[None, :, None] == 3, 0.0, -80.0)
    np.testing.assert_allclose(np.exp(attention_pool(c, alone)), softmax(c)[:, 3], rtol=1e-4)


def test_pooling_is_finite_where_probabilities_are_not():
    c = 300 * features(2, 5, 4)
    run = jax.value_and_grad(lambda c, a: attention_pool(c, a).sum(), argnums=(0, 1))
    value, gradients = jax.jit(run)(c, 300 * features(2, 5, 4, seed=1))
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradients)
