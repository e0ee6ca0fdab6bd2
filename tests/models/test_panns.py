"""The encoders against a plain NumPy convolution and PANNs' table 1."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ergl_jax.errors import InputError
from ergl_jax.models.panns import ARCHITECTURES, Encoder

SHORTEST = {"cnn14": 32, "cnn10": 16, "cnn6": 16}


# JAX's other generator: its draws compile many times faster.
KEY = jax.random.key(0, impl="rbg")


def init(encoder, frames, mels=64):
    x = jnp.zeros((1, frames, mels))
    return jax.jit(lambda: encoder.init(KEY, x, train=False))()


def random_variables(encoder, frames, mels):
    """Parameters and statistics that are nowhere 0 or 1, so that none can be left out."""
    rng = np.random.default_rng(0)

    def draw(path, x):
        name = path[-1].key
        if name in ("var", "scale"):
            return np.float32(rng.uniform(0.5, 2.0, x.shape))
        spread = math.sqrt(2 / np.prod(x.shape[:-1])) if name == "kernel" else 0.5
        return np.float32(spread * rng.normal(size=x.shape))

    shapes = jax.eval_shape(lambda: init(encoder, frames, mels))
    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.mark.parametrize(
    ("architecture", "frames", "shape"),
    [
        ("cnn14", 1001, (2, 31, 2048)),  # 10 s of the paper's front end
        ("cnn14", 95, (2, 2, 2048)),
        ("cnn14", 32, (2, 1, 2048)),
        ("cnn10", 1001, (2, 62, 512)),
        ("cnn6", 1001, (2, 62, 512)),
        ("cnn6", 16, (2, 1, 512)),
    ],
)
def test_output_shape(architecture, frames, shape):
    x = jnp.zeros((2, frames, 64))
    h, _ = jax.eval_shape(lambda: Encoder(architecture).init_with_output(KEY, x, train=False))
    assert h.shape == shape and h.dtype == jnp.float32


def test_width_divisor_divides_all_channels():
    shapes = jax.eval_shape(lambda: init(Encoder("cnn14", width_divisor=32), 32))["params"]
    widths = [shapes[f"ConvBlock_{i}"]["Conv_1"]["kernel"].shape[-1] for i in range(6)]
    assert widths == [2, 4, 8, 16, 32, 64]


def naive_encoder(variables, x, convolutions, pools):
    """PANNs' blocks in NumPy float64, in evaluation mode."""
    variables = jax.tree.map(np.float64, variables)
    params, stats = variables["params"], variables["batch_stats"]

    def norm(x, p, s):
        return (x - s["mean"]) / np.sqrt(s["var"] + 1e-5) * p["scale"] + p["bias"]

    def conv(x, kernel):
        side = kernel.shape[0]
        pad = side // 2
        padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        height, width = x.shape[1:3]
        return sum(
            padded[:, i : i + height, j : j + width] @ kernel[i, j]
            for i in range(side)
            for j in range(side)
        )

    x = norm(np.asarray(x, np.float64), params["BatchNorm_0"], stats["BatchNorm_0"])[..., None]
    for block in range(sum(name.startswith("ConvBlock") for name in params)):
        p, s = params[f"ConvBlock_{block}"], stats[f"ConvBlock_{block}"]
        for c in range(convolutions):
            x = conv(x, p[f"Conv_{c}"]["kernel"])
            x = np.maximum(norm(x, p[f"BatchNormReLU_{c}"], s[f"BatchNormReLU_{c}"]), 0.0)
        if block < pools:
            h, w = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
            x = (x[:, :h:2, :w:2] + x[:, 1:h:2, :w:2] + x[:, :h:2, 1:w:2] + x[:, 1:h:2, 1:w:2]) / 4
    return x.mean(axis=2)


@pytest.mark.parametrize(
    ("architecture", "convolutions", "pools"), [("cnn14", 2, 5), ("cnn10", 2, 4), ("cnn6", 1, 4)]
)
def test_equals_a_plain_convolution(architecture, convolutions, pools):
    encoder = Encoder(architecture, width_divisor=32)
    frames, mels = 3 * 2**pools + 1, 2**pools + 3  # neither is even
    x = 10.0 * jax.random.normal(KEY, (2, frames, mels))
    variables = random_variables(encoder, frames, mels)
    got = jax.jit(lambda: encoder.apply(variables, x, train=False))()
    want = naive_encoder(variables, x, convolutions, pools)
    assert got.shape == want.shape and got.shape[1] == 3 and want.std() > 0.01
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * want.std())


@pytest.mark.parametrize("architecture", ["cnn10", "cnn6"])
def test_kernels_are_uniform_within_the_he_bound(architecture):
    params = init(Encoder(architecture, width_divisor=8), 32)["params"]
    kernels = {
        jax.tree_util.keystr(path): np.asarray(x)
        for path, x in jax.tree_util.tree_leaves_with_path(params)
        if x.ndim == 4
    }
    assert len(kernels) == {"cnn10": 8, "cnn6": 4}[architecture]
    for name, kernel in kernels.items():
        height, width, channels, _ = kernel.shape
        bound = math.sqrt(6 / (height * width * channels))
        assert 0.93 * bound < np.abs(kernel).max() <= bound, name
        if kernel.size > 5000:
            assert kernel.std() == pytest.approx(bound / math.sqrt(3), rel=0.03), name
            assert abs(kernel.mean()) < 0.05 * bound, name


def test_batch_norm_starts_as_the_identity():
    variables = init(Encoder("cnn6", width_divisor=64), 16)
    for path, x in jax.tree_util.tree_leaves_with_path(variables):
        if x.ndim == 1:
            want = {"scale": 1.0, "var": 1.0, "bias": 0.0, "mean": 0.0}[path[-1].key]
            np.testing.assert_array_equal(x, want)


def test_the_input_is_normalised_per_mel_bin():
    encoder = Encoder("cnn6", width_divisor=16, dropout=0.0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 32, 16))
    offset, gain = 20.0 * rng.normal(size=16), rng.uniform(0.5, 3.0, 16)
    variables = init(encoder, 32, mels=16)
    assert variables["params"]["BatchNorm_0"]["scale"].shape == (16,)

    @jax.jit
    def train(x):
        return encoder.apply(variables, x, train=True, mutable="batch_stats")

    plain, _ = train(x)
    shifted, updated = train(x * gain + offset)
    # Each bin's own offset and gain vanish in training ...
    np.testing.assert_allclose(shifted, plain, atol=2e-3)
    # ... and a tenth of its mean and of its biased variance enters the statistics.
    stats = updated["batch_stats"]["BatchNorm_0"]
    seen = (x * gain + offset).reshape(-1, 16)
    np.testing.assert_allclose(stats["mean"], 0.1 * seen.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * seen.var(0), rtol=1e-4)


def test_dropout_follows_each_block_in_training():
    # Without it in evaluation: test_equals_a_plain_convolution.
    encoder = Encoder("cnn6", width_divisor=8, dropout=0.25)
    variables = random_variables(encoder, 64, 64)
    x = jax.random.normal(KEY, (2, 64, 64))

    @jax.jit
    def run():
        return encoder.apply(
            variables,
            x,
            train=True,
            rngs={"dropout": KEY},
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda m, _: type(m).__name__ in ("ConvBlock", "Dropout"),
        )

    seen = run()[1]["intermediates"]
    for block in range(4):
        before = seen[f"ConvBlock_{block}"]["__call__"][0]
        after = seen[f"Dropout_{block}"]["__call__"][0]
        ratio = np.asarray(after)[before != 0] / np.asarray(before)[before != 0]
        assert np.mean(ratio == 0) == pytest.approx(0.25, abs=0.06)
        np.testing.assert_allclose(ratio[ratio != 0], 1 / 0.75, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_too_short_input_is_named(architecture):
    shortest = SHORTEST[architecture]
    encoder = Encoder(architecture, width_divisor=64)

    def trace(frames, mels):
        return jax.eval_shape(lambda: init(encoder, frames, mels))

    trace(shortest, shortest)
    with pytest.raises(InputError, match=f"{architecture} .*at least {shortest} frames"):
        trace(shortest - 1, 64)
    with pytest.raises(InputError, match=f"at least {shortest} frames and mel bins"):
        trace(64, shortest - 1)


def test_unknown_architecture_is_named():
    with pytest.raises(InputError, match="'resnet' is not one of: cnn14, cnn10, cnn6"):
        jax.eval_shape(lambda: init(Encoder("resnet"), 64))


@pytest.mark.parametrize("divisor", [3, 128])
def test_a_divisor_that_does_not_divide_is_named(divisor):
    with pytest.raises(InputError, match=f"model.encoder.width_divisor={divisor} does not divide"):
        jax.eval_shape(lambda: init(Encoder("cnn14", width_divisor=divisor), 64))
