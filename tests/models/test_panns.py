"""The encoders against a plain NumPy convolution and PANNs' table 1."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ergl_jax.models.panns import ARCHITECTURES, PANN, Encoder

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
        ("cnn14", 32, (2, 1, 2048)),
        ("cnn6", 1001, (2, 62, 512)),
        ("cnn6", 16, (2, 1, 512)),
    ],
)
def test_output_shape(architecture, frames, shape):
    x = jnp.zeros((2, frames, 64))
    h, _ = jax.eval_shape(lambda: Encoder(architecture).init_with_output(KEY, x, train=False))
    assert h.shape == shape and h.dtype == jnp.float32


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


def test_kernels_are_uniform_within_the_he_bound():
    params = init(Encoder("cnn6", width_divisor=8), 32)["params"]
    kernels = {
        jax.tree_util.keystr(path): np.asarray(x)
        for path, x in jax.tree_util.tree_leaves_with_path(params)
        if x.ndim == 4
    }
    assert len(kernels) == 4
    for name, kernel in kernels.items():
        height, width, channels, _ = kernel.shape
        bound = math.sqrt(6 / (height * width * channels))
        assert 0.93 * bound < np.abs(kernel).max() <= bound, name
        if kernel.size > 5000:
            assert kernel.std() == pytest.approx(bound / math.sqrt(3), rel=0.03), name
            assert abs(kernel.mean()) < 0.05 * bound, name


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
    jax.eval_shape(lambda: init(encoder, shortest, shortest))
    for shape in ((shortest - 1, 64), (64, shortest - 1)):
        with pytest.raises(
            ValueError, match=f"{architecture} .*at least {shortest} frames and mel"
        ):
            jax.eval_shape(lambda shape=shape: init(encoder, *shape))


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (Encoder("resnet"), "architecture='resnet' is not one of: cnn14, cnn10, cnn6"),
        (Encoder("cnn14", 3), "width_divisor=3 does not divide the 64 channels of cnn14"),
        (Encoder("cnn14", 128), "width_divisor=128 does not divide"),
    ],
)
def test_a_wrong_argument_is_named(encoder, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: init(encoder, 64))


# PANNs' published numbers of parameters, less those of the STFT and the mel filters.
@pytest.mark.parametrize(
    ("architecture", "count"), [("cnn14", 80_753_615), ("cnn10", 5_219_279), ("cnn6", 4_837_455)]
)
def test_pann_parameters(architecture, count):
    shapes = jax.eval_shape(lambda: init(PANN(527, Encoder(architecture)), 64))
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == count


def test_pann_head():
    model = PANN(7, Encoder("cnn6", width_divisor=32))
    x = 10 * jax.random.normal(KEY, (3, 50, 64))
    variables = random_variables(model, 50, 64)
    output = jax.jit(lambda: model.apply(variables, x, train=False))()
    of_encoder = {name: tree["encoder"] for name, tree in variables.items()}
    h = np.float64(jax.jit(lambda: model.encoder.apply(of_encoder, x, train=False))())
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
