"""The whole model: sizes, intermediates, symmetry under the events' order, gradients.

equivalence/ compares every stage with the equations.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from made_systems import KEY, count, drawn, features, leaves

from configs import ergl as paper
from configs import esc10
from ergl_jax import registry
from ergl_jax.baselines.cnn import CNN
from ergl_jax.models import ERGL, Encoder

CLIPS, FRAMES, MELS = 3, 64, 16  # four encoder frames after cnn6
SCENES, EVENTS, CHANNELS = 5, 4, 6
# Compiling is most of the time here.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class Patches(nn.Module):
    """A stand-in for the encoder that compiles quickly: 16 frames by one dense layer."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, log_mel, *, train):
        patches = log_mel.reshape(len(log_mel), -1, 16 * MELS)
        return nn.relu(nn.Dense(16, dtype=self.dtype)(patches))


def tiny(encoder=None, **fields):
    fields = {"num_events": EVENTS, "channels": CHANNELS, "dropout": 0.0} | fields
    return ERGL(num_scenes=SCENES, encoder=encoder or Patches(), **fields)


def cnn6(dtype=jnp.float32):
    return Encoder("cnn6", width_divisor=16, dropout=0.0, dtype=dtype)


def setup(model, clips=CLIPS, frames=FRAMES, sharpness=5.0):
    """Variables of the model, and spectrograms."""
    x = features(clips, frames, MELS)
    return drawn(model, x, sharpness), x


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def evaluate(model, variables, *inputs):
    return model.apply(variables, *inputs, train=False)


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


# Sizes


def encoder_size(blocks, kernel, convolutions, mels=64):
    size, before = 2 * mels, 1
    for width in blocks:
        for _ in range(convolutions):
            size += kernel**2 * before * width + 2 * width
            before = width
    return size


CNN14 = encoder_size((64, 128, 256, 512, 1024, 2048), 3, 2)
NARROW = encoder_size((8, 16, 32, 64), 3, 2)


def ergl_size(encoder, d, n, layers=2, mel=True, c=64, scenes=10):
    embeddings = d * d + d + n * (d * c + c)
    classifier = n * (c + 1)
    edges = 2 * 3 * c * c if mel else 0
    gcn = layers * (5 * c * c + 2 * 2 * c)
    return encoder + embeddings + classifier + edges + gcn + n * c * scenes + scenes


def cnn_size(encoder, d, scenes=10):
    return encoder + d * d + d + d * scenes + scenes


def configured(config):
    return registry.build(config.model, num_scenes=10, num_events=config.data.num_events)


def full(**fields):
    return ERGL(num_scenes=10, encoder=Encoder(), **{"num_events": 25} | fields)


PAPERS = ergl_size(CNN14, 2048, 25)
SIZES = {  # model, closed form, the same number
    "Cnn14": (Encoder("cnn14"), CNN14, 75_477_440),
    "paper": (configured(paper.get_config()), PAPERS, 83_035_875),
    "without MEL": (full(mel=False), ergl_size(CNN14, 2048, 25, mel=False), 83_011_299),
    "clip tokens, softmax gates": (full(tokens="clip", gate="softmax"), PAPERS, 83_035_875),
    "three layers": (full(gcn_layers=3), ergl_size(CNN14, 2048, 25, layers=3), 83_056_611),
    "all of AudioSet": (full(num_events=527), ergl_size(CNN14, 2048, 527), 149_220_057),
    "synthetic": (configured(paper.get_config("synthetic")), ergl_size(NARROW, 64, 14), 212_160),
    "esc10": (configured(esc10.get_config()), ergl_size(NARROW, 64, 10), 192_700),
    "CNN": (CNN(10, Encoder("cnn14")), cnn_size(CNN14, 2048), 79_694_282),
}


@pytest.mark.parametrize("name", SIZES)
def test_parameter_count(name):
    model, closed_form, literal = SIZES[name]
    assert count(model, 1, 101, 64) == closed_form == literal


# Outputs


@pytest.mark.parametrize(("tokens", "layers"), [("frame", 3), ("clip", 1)])
def test_every_intermediate_has_its_shape(tokens, layers):
    model = tiny(cnn6(), tokens=tokens, gcn_layers=layers)
    out = jax.eval_shape(lambda: model.init_with_output(KEY, setup(model)[1], train=False))[0]
    b, n, c, t = CLIPS, EVENTS, CHANNELS, 4 if tokens == "frame" else 1
    assert out.scene_logits.shape == (b, SCENES)
    assert out.event_logits.shape == (b, n)
    assert jax.tree.map(jnp.shape, vars(out.graph)) == {
        "tokens": (b, n, t, c),
        "nodes_in": (b, n, c),
        "edges_in": (b, n, n, c),
        "nodes_out": (b, n, c),
        "edges_out": (b, n, n, c),
        "gates": (layers, b, n, n, c),
    }


@pytest.mark.parametrize("fields", [{}, {"tokens": "clip", "gate": "softmax"}])
def test_reordering_the_events_reorders_the_graph_and_leaves_the_scene(fields):
    model, order = tiny(**fields), np.array([2, 0, 3, 1])
    variables, x = setup(model)
    params = dict(variables["params"])
    head = params["head"] = dict(params["head"])
    for tree, name in ((params, "events"), (head, "event_classifier")):
        per_event = ("kernel", "bias")
        tree[name] = {k: v[order] if k in per_event else v for k, v in tree[name].items()}
    rows = head["scene"]["kernel"].reshape(EVENTS, CHANNELS, SCENES)
    head["scene"] = head["scene"] | {"kernel": rows[order].reshape(-1, SCENES)}

    before = evaluate(model, variables, x)
    after = evaluate(model, variables | {"params": params}, x)
    close(after.scene_logits, before.scene_logits)
    close(after.event_logits, before.event_logits[:, order])
    for name in ("tokens", "nodes_in", "nodes_out"):
        old = getattr(before.graph, name)
        close(getattr(after.graph, name), old[:, order])
        assert np.abs(old - old[:, order]).max() > 0.01  # the order is visible
    for name in ("edges_in", "edges_out"):
        close(getattr(after.graph, name), getattr(before.graph, name)[:, order][:, :, order])
    close(after.graph.gates, before.graph.gates[:, :, order][:, :, :, order])


@pytest.mark.parametrize("events", [1, 527])
def test_the_fewest_and_the_most_events(events):
    model = tiny(num_events=events)
    # Three frames: the pooling window of three makes the tokens of two alike.
    out = evaluate(model, *setup(model, clips=2, frames=48, sharpness=1.0))
    assert out.graph.edges_out.shape == (2, events, events, CHANNELS)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out))
    assert np.ptp(out.scene_logits) > 0
    assert events == 1 or np.ptp(out.graph.edges_in, axis=2).max() > 1e-3


def test_clips_do_not_influence_each_other():
    model = tiny(cnn6())
    variables, x = setup(model)
    together = evaluate(model, variables, x)
    again = evaluate(model, variables, np.concatenate([x[:1], 5.0 - 3.0 * x[1:]]))
    for old, new in zip(jax.tree.leaves(together), jax.tree.leaves(again), strict=True):
        axis = old.ndim - 4 if old.ndim == 5 else 0  # gates have the layers first
        np.testing.assert_allclose(new.take(0, axis), old.take(0, axis), rtol=1e-5, atol=1e-5)
        assert np.abs(new.take(1, axis) - old.take(1, axis)).max() > 1e-3


def test_scene_dropout_is_off_in_evaluation_and_on_in_training():
    model = tiny(dropout=0.5)
    variables, x = setup(model)
    first, second = (evaluate(model, variables, x).scene_logits for _ in range(2))
    np.testing.assert_array_equal(first, second)

    @jax.jit
    def train(key):
        rngs = {"dropout": key}
        return model.apply(variables, x, train=True, rngs=rngs, mutable="batch_stats")[0]

    one, two = (train(jax.random.key(seed, impl="rbg")) for seed in (1, 2))
    assert np.abs(one.scene_logits - two.scene_logits).max() > 0.01
    assert np.abs(one.graph.tokens - two.graph.tokens).max() > 0.01


def test_bfloat16_computes_near_float32():
    model, half = tiny(cnn6()), tiny(cnn6(jnp.bfloat16), dtype=jnp.bfloat16)
    variables, x = setup(model, sharpness=1.0)
    out, stored = jax.eval_shape(lambda: half.init_with_output(KEY, x, train=False))
    _, updated = jax.eval_shape(lambda: half.apply(variables, x, train=True, mutable="batch_stats"))
    for tree, dtype in ((stored, "float32"), (updated, "float32"), (out.graph, "bfloat16")):
        assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype(dtype)}
    assert out.scene_logits.dtype == out.event_logits.dtype == jnp.float32
    want, got = evaluate(model, variables, x), evaluate(half, variables, x)
    for a, b in zip(jax.tree.leaves(want), jax.tree.leaves(got), strict=True):
        assert np.abs(a - b).max() < 0.05 * np.abs(a).max()


# Gradients

LAST_EDGES = {"head/gcn1/BatchNormReLU_0/bias", "head/gcn1/BatchNormReLU_0/scale"}
QUERY_KEY = {f"head/mel/nnm/_Projections_0/{name}/kernel" for name in ("query", "key")}


@pytest.mark.parametrize(
    ("fields", "dead"),
    [
        # Nothing reads the last layer's e': its gates are made of ê.
        ({"encoder": cnn6()}, LAST_EDGES),
        # ME-GraphAU's gates are made of e'.
        ({"gate": "softmax"}, set()),
        # Without MEL the first layer multiplies C by zeros.
        ({"mel": False}, LAST_EDGES | {"head/gcn0/C/kernel"}),
        # A softmax over one key is 1 whatever query and key are.
        ({"tokens": "clip"}, LAST_EDGES | QUERY_KEY),
    ],
)
def test_gradients_reach_all_parameters_but_these(fields, dead):
    model = tiny(**fields)
    variables, x = setup(model, clips=6)
    rng = np.random.default_rng(3)
    scenes, events = rng.integers(SCENES, size=6), rng.uniform(size=(6, EVENTS))

    @functools.partial(jax.jit, compiler_options=QUICK)
    def gradients(params):
        def loss(params):
            changed = variables | {"params": params}
            out, _ = model.apply(changed, x, train=True, mutable="batch_stats")
            scene = -jax.nn.log_softmax(out.scene_logits)[jnp.arange(6), scenes].mean()
            return scene + ((jax.nn.sigmoid(out.event_logits) - events) ** 2).mean()

        return jax.grad(loss)(params)

    grads = leaves(gradients(variables["params"]))
    assert all(np.isfinite(g).all() for g in grads.values())
    assert {name for name, g in grads.items() if not g.any()} == dead


# build


def tiny_config(**overrides):
    config = paper.get_config("synthetic").model
    config.update_from_flattened_dict(overrides)
    return config


def test_build_passes_every_field_on():
    config = tiny_config(
        **{
            "channels": 12,
            "tokens": "clip",
            "mel": False,
            "gcn.layers": 3,
            "gcn.gate": "softmax",
            "dropout": 0.1,
            "compute_dtype": "bfloat16",
            "encoder.architecture": "cnn6",
            "encoder.width_divisor": 16,
            "encoder.dropout": 0.3,
        }
    )
    encoder = Encoder("cnn6", 16, 0.3, "batch", jnp.bfloat16)
    built = registry.build(config, num_scenes=7, num_events=9, axis_name="batch")
    assert built == ERGL(
        7, 9, encoder, 12, "clip", False, 3, "softmax", 0.1, axis_name="batch", dtype=jnp.bfloat16
    )
    built = registry.build(tiny_config(name="cnn", dropout=0.1), num_scenes=7, num_events=0)
    assert built == CNN(7, Encoder("cnn10", 8, 0.0), 0.1)


def test_the_cnn_has_scene_logits_alone():
    model = CNN(SCENES, cnn6())
    variables, x = setup(model)
    params = variables["params"]
    out = evaluate(model, variables, x)
    h = np.asarray(evaluate(model.encoder, {k: v["encoder"] for k, v in variables.items()}, x))
    z = h.max(axis=1) + h.mean(axis=1)
    g = np.maximum(z @ params["shared"]["kernel"] + params["shared"]["bias"], 0)
    close(out.scene_logits, g @ params["scene"]["kernel"] + params["scene"]["bias"])
    assert out.event_logits is None and out.graph is None
