"""The wavelet CRNN: where each order goes, and its recurrent layer against PyTorch's."""

import jax
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

from ergl_jax.baselines.mtl import BiGRU
from ergl_jax.baselines.wavelet_crnn import ScaleConvs, WaveletCRNN
from ergl_jax.errors import InputError

CONVS = conv_norm(1, 128) + 2 * conv_norm(128, 128)


@pytest.mark.parametrize(
    ("first", "second", "scales"),
    [(80, 400, 1 + 6), (64, 64, 1 + 1), (1, 1, 1 + 1), (3, 127, 1 + 1), (130, 256, 2 + 4)],
)
def test_shapes_and_parameters(first, second, scales):
    model = WaveletCRNN(10, first_order=first)
    recurrent = bigru(128 * scales, 128) + bigru(256, 128)
    want = 2 * CONVS + recurrent + dense(256, 10)
    assert count(model, 1, 54, first + second) == want
    narrow = 2 * (conv_norm(1, 8) + 2 * conv_norm(8, 8)) + bigru(8 * scales, 8) + bigru(16, 8)
    assert count(model.clone(width_divisor=16), 1, 9, first + second) == narrow + dense(16, 10)
    assert output_shapes(model, 2, 54, first + second).scene_logits.shape == (2, 10)


@pytest.mark.parametrize(("scales", "left"), [(1, 1), (4, 1), (63, 1), (64, 1), (128, 2)])
def test_pools_go_along_scale_alone(scales, left):
    x = np.zeros((2, 9, scales), np.float32)
    shape = jax.eval_shape(lambda: ScaleConvs(4).init_with_output(KEY, x, train=False)[0]).shape
    assert shape == (2, 9, 4 * left)


def test_each_order_has_its_own_convolutions():
    model, x = WaveletCRNN(3, first_order=5, width_divisor=32), features(2, 6, 12)
    variables = init(model, *x.shape)
    plain = apply(model, variables, x).scene_logits
    # Without the first order's convolutions its columns don't matter, and the others' still do.
    for layer in variables["params"]["first"].values():
        if "kernel" in layer:
            layer["kernel"] = np.zeros_like(layer["kernel"])
    deaf = apply(model, variables, x).scene_logits
    first, second = x.copy(), x.copy()
    first[..., :5] += 1.0
    second[..., 5:] *= 2.0
    np.testing.assert_array_equal(apply(model, variables, first).scene_logits, deaf)
    assert np.abs(apply(model, variables, second).scene_logits - deaf).max() > 0
    assert np.abs(plain - deaf).max() > 0


def test_the_recurrent_layer_is_pytorchs():
    torch = pytest.importorskip("torch")
    x, units = features(2, 7, 5), 3
    layer = BiGRU(units)
    shapes = jax.eval_shape(lambda: layer.init(KEY, x))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), shapes)
    cells = list(variables["params"].values())
    if len(cells) == 1:
        cells = list(cells[0].values())
    forward, backward = (cell.get("cell", cell) for cell in cells)
    gru = torch.nn.GRU(5, units, bidirectional=True, batch_first=True)
    with torch.no_grad():
        for suffix, cell in (("l0", forward), ("l0_reverse", backward)):
            inputs = [cell[name] for name in ("ir", "iz", "in")]
            states = [cell[name]["kernel"].T for name in ("hr", "hz", "hn")]
            zero = np.zeros(units, np.float32)
            values = {
                "weight_ih": np.concatenate([gate["kernel"].T for gate in inputs]),
                "bias_ih": np.concatenate([gate["bias"] for gate in inputs]),
                "weight_hh": np.concatenate(states),
                "bias_hh": np.concatenate([zero, zero, cell["hn"]["bias"]]),
            }
            for name, value in values.items():
                getattr(gru, f"{name}_{suffix}").copy_(torch.from_numpy(value))
        want, _ = gru(torch.from_numpy(x))
    np.testing.assert_allclose(jax.jit(layer.apply)(variables, x), want, atol=1e-5)


def test_gradients_reach_every_layer():
    model, x = WaveletCRNN(3, first_order=5, width_divisor=32), features(2, 6, 12)
    variables = init(model, *x.shape)
    gradient, _ = trained_once(model, variables, x, np.array([0, 2]))
    for path, found in leaves(gradient).items():
        assert np.isfinite(found).all() and np.abs(found).max() > 0, path


def test_coefficients_are_standardised_first():
    model, x = WaveletCRNN(3, first_order=5, width_divisor=32), features(2, 6, 12)
    variables = init(model, *x.shape)
    want = apply(model, variables, x).scene_logits
    mean, deviation = features(12), np.exp(features(12, seed=1))
    variables["batch_stats"]["standardise"] = {"mean": mean, "deviation": deviation}
    found = apply(model, variables, x * deviation + mean).scene_logits
    np.testing.assert_allclose(found, want, atol=1e-4)


def test_bfloat16():
    check_bfloat16(WaveletCRNN(10, first_order=5, width_divisor=8), 1, 8, 12)


def test_errors():
    check_divisor(WaveletCRNN(10, first_order=5), 1, 8, 12)
    for first in (0, 12):
        with pytest.raises(InputError, match=f"first_order={first} of 12 scattering coeff"):
            count(WaveletCRNN(10, first_order=first), 1, 8, 12)
