"""The systems that ERGL is compared with: sizes, shapes, what they refuse, and their gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from ergl_jax.baselines.abcnn import ABCNN
from ergl_jax.baselines.conditional import Conditional
from ergl_jax.baselines.dcase2018 import DCASE2018
from ergl_jax.baselines.joint import Joint
from ergl_jax.baselines.mtl import MTL
from ergl_jax.baselines.rgasc import RGASC
from ergl_jax.baselines.surrey import SurreyCNN
from ergl_jax.errors import InputError
from ergl_jax.training.losses import LOSSES, RELATED, Relations, make_loss

SYSTEMS = [DCASE2018, SurreyCNN, ABCNN, MTL, Conditional, Joint, RGASC]
WITHOUT_EVENTS = (DCASE2018, SurreyCNN, ABCNN)
FEATURES = {DCASE2018: (500, 40), MTL: (500, 64), Conditional: (500, 64), Joint: (500, 64)}
KONG = (320, 64)
SHORTEST = {DCASE2018: (5, 20), SurreyCNN: (16, 16), ABCNN: (16, 16), RGASC: (32, 32)}
NARROW = {DCASE2018: 4, RGASC: 32}  # the others are divided by 8
KEY = jax.random.key(0, impl="rbg")
each_system = pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.__name__)


def build(system, divisor=1, scenes=10, events=25, **fields):
    if system not in WITHOUT_EVENTS:
        fields["num_events"] = events
    return system(num_scenes=scenes, width_divisor=divisor, **fields)


def shapes(model, frames, mels):
    """Output and variables of two clips, by shape."""
    x = jnp.zeros((2, frames, mels))
    return jax.eval_shape(lambda: model.init_with_output(KEY, x, train=False))


@functools.cache
def narrow(system):
    """A small model, variables by which signals neither grow nor fade, and four short clips."""
    model = build(system, NARROW.get(system, 8), scenes=3, events=4)
    rng = np.random.default_rng(0)

    def draw(path, x):
        if "kernel" in path[-1].key:
            return np.float32(np.sqrt(2 / np.prod(x.shape[:-1])) * rng.normal(size=x.shape))
        # Biases that keep hidden units on the side that is alive; else as every model begins.
        start = {"bias": 0.3, "mean": 0.0}.get(path[-1].key, 1.0)
        return np.full(x.shape, start, np.float32)

    _, variables = shapes(model, 64, 40)
    x = rng.normal(size=(4, 64, 40)).astype(np.float32)
    return model, jax.tree_util.tree_map_with_path(draw, variables), x


def size(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


# Parameters of a layer, by its inputs and outputs.


def conv(inputs, outputs, side, bias=False):
    return side * side * inputs * outputs + (outputs if bias else 0)


def norm(channels):
    return 2 * channels


def dense(inputs, outputs):
    return inputs * outputs + outputs


def bigru(inputs, units):
    """Three gates each way; the hidden state has a bias in the candidate alone."""
    return 2 * (3 * (inputs * units + units + units * units) + units)


def vgg(channels, side, convolutions):
    total, inputs = 0, 1
    for outputs in channels:
        for _ in range(convolutions):
            total += conv(inputs, outputs, side) + norm(outputs)
            inputs = outputs
    return total


def mtl_conv(inputs, outputs):
    return conv(inputs, outputs, 3, bias=True) + norm(outputs)


def mtl_parts(d, n):
    """Backbone, scene head, GRU, hidden layer and last layer of the events; n events, width 1/d."""
    backbone = mtl_conv(1, 128 // d) + 2 * mtl_conv(128 // d, 128 // d)
    scene = mtl_conv(128 // d, 256 // d) + mtl_conv(256 // d, 256 // d)
    scene += dense(512 // d, 32 // d) + dense(32 // d, 10)
    gru = bigru(256 // d, 64 // d)
    return backbone, scene, gru, dense(128 // d, 32 // d), dense(32 // d, n)


def expected_size(system, d, n=25):
    """The parameters at the published features, widths divided by d, all but the baseline's 100."""
    cnn14 = [c // d for c in (64, 128, 256, 512, 1024, 2048)]
    if system is DCASE2018:
        first = conv(1, 32 // d, 7, bias=True) + norm(40)
        second = conv(32 // d, 64 // d, 7, bias=True) + norm(8)  # 40 rows, pooled by five
        return first + second + dense(2 * 64 // d, 100) + dense(100, 10)
    if system is SurreyCNN:
        return vgg(cnn14[:4], 3, 2) + dense(512 // d, 10)
    if system is ABCNN:
        return vgg(cnn14[:4], 5, 1) + 2 * dense(512 // d, 10)
    if system is MTL:
        return sum(mtl_parts(d, n))
    if system is Conditional:
        return sum(mtl_parts(d, n)) + 10 * (32 // d)
    if system is Joint:
        backbone, _, gru, _, _ = mtl_parts(d, n)
        return backbone + gru + dense(128 // d, 10 + n)
    shared, whole = vgg(cnn14[:2], 3, 2), vgg(cnn14, 3, 2)
    widest = cnn14[-1]
    towers = 2 * (whole - shared + dense(widest, widest))
    return shared + towers + dense(widest, 10) + dense(widest, n)


@each_system
@pytest.mark.parametrize("divisor", [1, 4])
def test_parameters_are_those_of_the_layers(system, divisor):
    frames, mels = FEATURES.get(system, KONG)
    output, variables = shapes(build(system, divisor), frames, mels)
    assert size(variables["params"]) == expected_size(system, divisor)
    assert output.scene_logits.shape == (2, 10) and output.scene_logits.dtype == jnp.float32
    if system in WITHOUT_EVENTS:
        assert output.event_logits is None
    else:
        assert output.event_logits.shape == (2, 25) and output.event_logits.dtype == jnp.float32
    by_scene = output.event_logits_by_scene
    assert by_scene.shape == (2, 10, 25) if system is Conditional else by_scene is None
    # Standardised by band, where the training loop looks for it.
    assert variables["batch_stats"]["standardise"]["mean"].shape == (mels,)


def test_dcase_2018_counts_as_keras_does():
    _, variables = shapes(DCASE2018(10), 500, 40)
    statistics = dict(variables["batch_stats"])
    del statistics["standardise"]  # Keras' features come standardised
    assert size(variables["params"]) == 116_022
    assert size(statistics) == 96
    assert size(variables["params"]) + size(statistics) == 116_118
    assert variables["params"]["BatchNorm_0"]["scale"].shape == (40,)  # rows, not channels


def test_rgasc_has_the_parts_that_models_of_one_task_hand_on():
    _, variables = shapes(build(RGASC, 16), *KONG)
    names = {"shared", "scene_tower", "event_tower", "scene", "events"}
    assert set(variables["params"]) == names
    towers = [
        jax.tree.map(jnp.shape, variables["params"][f"{x}_tower"]) for x in ("scene", "event")
    ]
    assert towers[0] == towers[1]


@each_system
def test_too_short_input_is_named(system):
    frames, mels = SHORTEST.get(system, (1, 32))
    model = build(system, NARROW.get(system, 8))
    output, _ = shapes(model, frames, mels)
    assert output.scene_logits.shape == (2, 10)
    message = f"needs at least {frames} frames and {mels} mel bins"
    for short in ((frames - 1, mels), (frames, mels - 1)):
        with pytest.raises(InputError, match=message):
            shapes(model, *short)


@pytest.mark.parametrize("frames", [60, 499, 640, 1100])
def test_clips_of_any_length_are_pooled(frames):
    for system in (DCASE2018, MTL):
        output, _ = shapes(build(system, 4), frames, 64)
        assert output.scene_logits.shape == (2, 10)


@each_system
@pytest.mark.parametrize("divisor", [3, 4096])
def test_a_divisor_that_does_not_divide_is_named(system, divisor):
    with pytest.raises(InputError, match=f"model.encoder.width_divisor={divisor} does not divide"):
        shapes(build(system, divisor), *FEATURES.get(system, KONG))


@each_system
def test_features_are_standardised_by_band(system):
    model, variables, x = narrow(system)
    apply = jax.jit(functools.partial(model.apply, train=False))
    plain = apply(variables, x).scene_logits
    rng = np.random.default_rng(0)
    mean, deviation = 20 * rng.normal(size=40), rng.uniform(0.5, 3.0, 40)
    statistics = {"standardise": {"mean": jnp.float32(mean), "deviation": jnp.float32(deviation)}}
    moved = variables | {"batch_stats": variables["batch_stats"] | statistics}
    found = apply(moved, np.float32(x * deviation + mean)).scene_logits
    spread = np.ptp(plain, axis=0).max()  # the clips differ
    np.testing.assert_allclose(found, plain, rtol=0, atol=1e-3 * spread)


LOSS_OF = {
    DCASE2018: ("scene",),
    SurreyCNN: ("scene",),
    ABCNN: ("nll",),
    MTL: ("bce",),
    Conditional: ("conditional",),
    Joint: ("joint",),
    RGASC: ("rgasc_log", "rgasc_prob"),
}


def test_every_loss_but_ergls_and_one_of_events_alone_has_a_system():
    named = {name for names in LOSS_OF.values() for name in names}
    assert named == {*LOSSES, *RELATED} - {"ergl", "events"}


@each_system
def test_every_weight_learns(system):
    model, variables, x = narrow(system)
    rng = np.random.default_rng(0)
    scene = rng.dirichlet(np.ones(3), len(x)).astype(np.float32)  # as mixup leaves them
    events = rng.random((len(x), 4), np.float32)
    relations = Relations(rng.random((3, 4), np.float32), rng.random((3, 4)) > 0.5)

    @jax.jit
    def grads(params):
        def total(params):
            output, changed = model.apply(
                variables | {"params": params},
                x,
                train=True,
                rngs={"dropout": KEY},
                mutable=["batch_stats"],
            )
            parts = [
                make_loss(name, relations)(output, scene=scene, events=events)
                for name in LOSS_OF[system]
            ]
            return sum(p["loss"] for p in parts), changed["batch_stats"]

        return jax.grad(total, has_aux=True)(params)

    gradients, statistics = grads(variables["params"])
    for name, gradient in flatten_dict(gradients, sep="/").items():
        assert np.isfinite(gradient).all(), name
        # BatchNorm by channel takes away what the convolution's bias adds.
        idle = system in (MTL, Conditional, Joint) and name.endswith("Conv_0/bias")
        assert idle or np.abs(gradient).max() > 0, name
    before = flatten_dict(variables["batch_stats"], sep="/")
    for name, after in flatten_dict(statistics, sep="/").items():
        fixed = name.startswith("standardise/")
        assert np.array_equal(after, before[name]) == fixed, name


def test_events_given_the_predicted_scene_are_those_given_that_scene():
    model, variables, x = narrow(Conditional)
    apply = jax.jit(functools.partial(model.apply, train=False))
    for scene in range(3):
        flat = flatten_dict(variables, sep="/")
        name = "params/scene_head/scene/bias"
        flat[name] = 1e4 * jnp.eye(len(flat[name]))[scene]  # certain of it
        output = apply(unflatten_dict(flat, sep="/"), x)
        np.testing.assert_allclose(
            output.event_logits, output.event_logits_by_scene[:, scene], rtol=0, atol=1e-6
        )
    assert np.ptp(output.event_logits_by_scene, axis=1).max() > 1e-3  # it listens to the scene
