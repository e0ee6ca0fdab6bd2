"""PANNs: shapes, table 1's numbers of parameters, initial values, dropout and the tagging head.

equivalence/ compares the encoders with PyTorch's layers, evaluation, training and gradients.
"""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from made_systems import KEY, apply, count, drawn, features, init, leaves, output_shapes

from ergl_jax.models.panns import PANN, Encoder

SHORTEST = {"cnn14": 32, "cnn10": 16, "cnn6": 16}


def test_output_shape():
    for architecture, frames, shape in (
        ("cnn14", 1001, (2, 31, 2048)),  # 10 s of the paper's front end
        ("cnn14", 32, (2, 1, 2048)),
        ("cnn6", 1001, (2, 62, 512)),
    ):
        h = output_shapes(Encoder(architecture), 2, frames, 64)
        assert h.shape == shape and h.dtype == jnp.float32


def test_kernels_are_uniform_within_the_he_bound():
    params = leaves(init(Encoder("cnn6", width_divisor=8), 1, 32, 64)["params"])
    kernels = {name: x for name, x in params.items() if x.ndim == 4}
    assert len(kernels) == 4
    for name, kernel in kernels.items():
        bound = math.sqrt(6 / np.prod(kernel.shape[:3]))
        assert 0.93 * bound < np.abs(kernel).max() <= bound, name
        if kernel.size > 5000:
            assert kernel.std() == pytest.approx(bound / math.sqrt(3), rel=0.03), name
            assert abs(kernel.mean()) < 0.05 * bound, name


def test_dropout_follows_each_block_in_training():
    encoder, x = Encoder("cnn6", width_divisor=8, dropout=0.25), features(2, 64, 64)
    variables = drawn(encoder, x)
    found = jax.jit(
        lambda: encoder.apply(
            variables,
            x,
            train=True,
            rngs={"dropout": KEY},
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda m, _: type(m).__name__ in ("ConvBlock", "Dropout"),
        )
    )
    seen = found()[1]["intermediates"]
    for block in range(4):
        before = seen[f"ConvBlock_{block}"]["__call__"][0]
        after = seen[f"Dropout_{block}"]["__call__"][0]
        ratio = np.asarray(after)[before != 0] / np.asarray(before)[before != 0]
        assert np.mean(ratio == 0) == pytest.approx(0.25, abs=0.06)
        np.testing.assert_allclose(ratio[ratio != 0], 1 / 0.75, rtol=1e-5)


@pytest.mark.parametrize("architecture", SHORTEST)
def test_too_short_input_is_named(architecture):
    shortest, encoder = SHORTEST[architecture], Encoder(architecture, width_divisor=64)
    count(encoder, 1, shortest, shortest)
    for shape in ((shortest - 1, 64), (64, shortest - 1)):
        message = f"{architecture} .*at least {shortest} frames and"
        with pytest.raises(ValueError, match=message):
            count(encoder, 1, *shape)


def test_a_wrong_argument_is_named():
    for encoder, message in (
        (Encoder("resnet"), "architecture='resnet' is not one of: cnn14, cnn10, cnn6"),
        (Encoder("cnn14", 3), "width_divisor=3 does not divide the 64 channels of cnn14"),
        (Encoder("cnn14", 128), "width_divisor=128 does not divide"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            count(encoder, 1, 64, 64)


# PANNs' published numbers of parameters, less those of the STFT and the mel filters.
@pytest.mark.parametrize(
    ("architecture", "size"), [("cnn14", 80_753_615), ("cnn10", 5_219_279), ("cnn6", 4_837_455)]
)
def test_pann_parameters(architecture, size):
    assert count(PANN(527, Encoder(architecture)), 1, 64, 64) == size


def test_pann_head():
    model, x = PANN(7, Encoder("cnn6", width_divisor=32)), 10 * features(3, 50, 64)
    variables = drawn(model, x)
    output = apply(model, variables, x)
    of_encoder = {name: tree["encoder"] for name, tree in variables.items()}
    h = np.float64(apply(model.encoder, of_encoder, x))
    params = jax.tree.map(np.float64, variables["params"])
    z = h.max(axis=1) + h.mean(axis=1)
    embedding = np.maximum(z @ params["fc1"]["kernel"] + params["fc1"]["bias"], 0)
    logits = embedding @ params["fc_audioset"]["kernel"] + params["fc_audioset"]["bias"]
    assert h.shape == (3, 3, 16) and output.scene_logits is None and output.graph is None
    np.testing.assert_allclose(output.embedding, embedding, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output.event_logits, logits, rtol=1e-4, atol=1e-5)

    @jax.jit
    def train(key):
        rngs = {"dropout": key}
        return model.apply(variables, x, train=True, rngs=rngs, mutable=["batch_stats"])[0]

    one, other = (train(jax.random.key(seed)) for seed in (1, 2))
    assert np.abs(one.event_logits - other.event_logits).min() > 0
