"""The CRNN with self-attention: its parts against their equations and against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from made_systems import (
    KEY,
    apply,
    bigru,
    check_bfloat16,
    check_divisor,
    conv_norm,
    count,
    dense,
    features,
    init,
    leaves,
    output_shapes,
    trained_once,
)

from ergl_jax.baselines.attention_crnn import (
    AttentionCRNN,
    GatedConv,
    SelfAttention,
    attention_pool,
)
from ergl_jax.errors import InputError


def softmax(x, axis=-1):
    x = np.exp(x - x.max(axis=axis, keepdims=True))
    return x / x.sum(axis=axis, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("divisor", [1, 8])
def test_shapes_and_parameters(divisor):
    half, hidden, wide = 64 // divisor, 128 // divisor, 256 // divisor
    gated = conv_norm(1, 2 * half) + 7 * conv_norm(half, 2 * half)
    recurrent = conv_norm(half, wide) + bigru(wide, hidden) + 3 * wide**2
    model = AttentionCRNN(10, width_divisor=divisor)
    for frames, mels in ((320, 64), (7, 16)):  # the parameters depend on neither
        assert count(model, 1, frames, mels) == gated + recurrent + 2 * dense(wide, 10)
        assert output_shapes(model, 2, frames, mels).scene_logits.shape == (2, 10)


def test_attention_over_time_equals_its_equation():
    h = features(2, 5, 6)
    attention = SelfAttention()
    variables = jax.jit(lambda: attention.init(KEY, h))()
    q, k, v = (np.asarray(variables["params"][name]["kernel"], np.float64) for name in "qkv")
    weights = softmax(h @ q @ (h @ k).swapaxes(1, 2) / np.sqrt(6))
    found = attention.apply(variables, h)
    np.testing.assert_allclose(found, h + weights @ (h @ v), rtol=1e-4, atol=1e-5)


def test_attention_is_pytorchs():
    torch = pytest.importorskip("torch")
    h = features(2, 5, 6)
    attention = SelfAttention()
    variables = jax.jit(lambda: attention.init(KEY, h))()
    x = torch.tensor(h)
    q, k, v = (x @ torch.tensor(np.array(variables["params"][name]["kernel"])) for name in "qkv")
    want = x + torch.nn.functional.scaled_dot_product_attention(q, k, v)
    np.testing.assert_allclose(attention.apply(variables, h), want, rtol=1e-4, atol=1e-5)


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


def test_the_gate_is_half_of_the_channels():
    x = features(2, 6, 5, 3)
    block = GatedConv(4)
    variables = jax.jit(lambda: block.init(KEY, x, train=False))()
    norm = variables["params"]["BatchNorm_0"]
    norm |= {"scale": jnp.linspace(0.5, 2, 8), "bias": jnp.linspace(-1, 1, 8)}
    y = jax.lax.conv_general_dilated(
        x,
        variables["params"]["Conv_0"]["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    y = y / np.sqrt(1 + 1e-5) * norm["scale"] + norm["bias"]
    found = jax.jit(lambda: block.apply(variables, x, train=False))()
    np.testing.assert_allclose(found, y[..., :4] * sigmoid(y[..., 4:]), rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_layer():
    model, x = AttentionCRNN(3, width_divisor=32), features(2, 6, 16)
    variables = init(model, *x.shape)
    # The scene layer begins near zero, where `weight` has next to no gradient.
    variables["params"]["scene"]["kernel"] *= 50
    gradient, updated = trained_once(model, variables, x, np.array([0, 2]))
    for path, found in leaves(gradient).items():
        assert np.isfinite(found).all() and np.abs(found).max() > 0, path
    before, after = leaves(variables["batch_stats"]), leaves(updated)
    moved = {path for path in before if np.abs(before[path] - after[path]).max() > 0}
    assert {path for path in before if path not in moved} == {
        "standardise/mean",
        "standardise/deviation",
    }


def test_bands_are_standardised_first():
    model, x = AttentionCRNN(3, width_divisor=32), features(2, 6, 16)
    variables = init(model, *x.shape)
    want = apply(model, variables, x).scene_logits
    mean, deviation = features(16), np.exp(features(16, seed=1))
    variables["batch_stats"]["standardise"] = {"mean": mean, "deviation": deviation}
    found = apply(model, variables, x * deviation + mean).scene_logits
    np.testing.assert_allclose(found, want, atol=1e-4)


def test_bfloat16():
    check_bfloat16(AttentionCRNN(10, width_divisor=8), 1, 8, 16)


def test_errors():
    check_divisor(AttentionCRNN(10), 1, 8, 16)
    with pytest.raises(InputError, match="at least 1 frames and 16 mel bins, not .8, 15."):
        count(AttentionCRNN(10), 1, 8, 15)
