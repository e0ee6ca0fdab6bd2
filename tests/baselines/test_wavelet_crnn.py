"""The wavelet CRNN: pools along scale, and separate convolutions for each order."""

import jax
import numpy as np
import pytest
from made_systems import KEY, apply, features, init

from ergl_jax.baselines.wavelet_crnn import ScaleConvs, WaveletCRNN


@pytest.mark.parametrize(("scales", "left"), [(1, 1), (63, 1), (64, 1), (128, 2)])
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
