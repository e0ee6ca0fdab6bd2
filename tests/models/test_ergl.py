"""The whole model: sizes, intermediates, symmetry under the events' order, gradients."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import ergl as paper
from configs import esc10
from ergl_jax import registry
from ergl_jax.baselines.cnn import CNN
from ergl_jax.models import ERGL, Encoder
from ergl_jax.models.edges import EdgeLearning
from ergl_jax.models.events import EventEmbeddings
from ergl_jax.models.gated_gcn import GatedGCNLayer

CLIPS, FRAMES, MELS = 3, 64, 16  # four encoder frames after cnn6
SCENES, EVENTS, CHANNELS = 5, 4, 6
# JAX's other generator: its draws compile many times faster.
KEY = jax.random.key(0, impl="rbg")
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


def spectrograms(clips=CLIPS, frames=FRAMES, seed=0):
    return np.float32(np.random.default_rng(seed).normal(size=(clips, frames, MELS)))


def shapes_of(model, x):
    """Shapes of (output, variables), nothing computed."""
    return jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), x, train=False))


def random_variables(model, x, sharpness=5.0):
    """He-scaled kernels; biases, scales and statistics that are nowhere 0 or 1."""
    rng = np.random.default_rng(0)

    def draw(path, x):
        name = path[-1].key
        if name in ("scale", "var"):
            return np.float32(rng.uniform(0.5, 1.5, x.shape))
        if name in ("bias", "mean"):
            return np.float32(0.3 * rng.normal(size=x.shape))
        fan_in = x.shape[-1] if path[-2].key == "event_classifier" else np.prod(x.shape[:-1])
        if x.ndim == 3:  # the n layers of the events
            fan_in = x.shape[1]
        # Near-uniform attention would hide the queries.
        gain = sharpness if path[-2].key in ("query", "key") else 1.0
        return np.float32(gain * rng.normal(size=x.shape) * np.sqrt(2 / fan_in))

    return jax.tree_util.tree_map_with_path(draw, shapes_of(model, x)[1])


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def evaluate(model, variables, *inputs):
    return model.apply(variables, *inputs, train=False)


# Sizes


def encoder_size(blocks, kernel, convolutions, mels=64):
    size, before = 2 * mels, 1
    for width in blocks:
        for _ in range(convolutions):
            size += kernel**2 * before * width + 2 * width
            before = width
    return size


CNN14 = encoder_size((64, 128, 256, 512, 1024, 2048), 3, 2)


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


SIZES = {  # model, closed form, the same number
    "Cnn14": (Encoder("cnn14"), CNN14, 75_477_440),
    "ERGL from the config": (
        configured(paper.get_config()),
        ergl_size(CNN14, 2048, 25),
        83_035_875,
    ),
    "without MEL": (full(mel=False), ergl_size(CNN14, 2048, 25, mel=False), 83_011_299),
    "clip tokens": (full(tokens="clip"), ergl_size(CNN14, 2048, 25), 83_035_875),
    "softmax gates": (full(gate="softmax"), ergl_size(CNN14, 2048, 25), 83_035_875),
    "three layers": (full(gcn_layers=3), ergl_size(CNN14, 2048, 25, layers=3), 83_056_611),
    "all of AudioSet": (full(num_events=527), ergl_size(CNN14, 2048, 527), 149_220_057),
    "synthetic": (
        configured(paper.get_config("synthetic")),
        ergl_size(encoder_size((8, 16, 32, 64), 3, 2), 64, 14),
        212_160,
    ),
    "esc10": (
        configured(esc10.get_config()),
        ergl_size(encoder_size((8, 16, 32, 64), 3, 2), 64, 10),
        192_700,
    ),
    "CNN": (CNN(10, Encoder("cnn14")), cnn_size(CNN14, 2048), 79_694_282),
}


@pytest.mark.parametrize("name", SIZES)
def test_parameter_count(name):
    model, closed_form, literal = SIZES[name]
    params = shapes_of(model, jnp.zeros((1, 101, 64)))[1]["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == closed_form == literal


# Outputs


@pytest.mark.parametrize(("tokens", "layers"), [("frame", 3), ("clip", 1)])
def test_every_intermediate_has_its_shape(tokens, layers):
    model = tiny(cnn6(), tokens=tokens, gcn_layers=layers)
    out, _ = shapes_of(model, spectrograms())
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


@pytest.mark.parametrize("mel", [True, False])
def test_each_stage_follows_from_the_one_before(mel):
    """Each stage recomputed from the output of the stage before."""
    model, x = tiny(mel=mel), spectrograms()
    variables = random_variables(model, x)
    params, stats = variables["params"], variables["batch_stats"]
    out = evaluate(model, variables, x)
    graph = out.graph

    def close(got, want):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)

    h = evaluate(model.encoder, {"params": params["encoder"]}, x)
    embed = EventEmbeddings(EVENTS, CHANNELS)
    close(graph.tokens, evaluate(embed, {"params": params["events"]}, h))
    close(graph.nodes_in, (graph.tokens.max(axis=2) + graph.tokens.mean(axis=2)) / 2)
    params, stats = params["head"], stats["head"]
    p = params["event_classifier"]
    close(out.event_logits, (graph.nodes_in * p["kernel"]).sum(-1) + p["bias"])
    if mel:
        close(graph.edges_in, EdgeLearning().apply({"params": params["mel"]}, graph.tokens))
        assert np.ptp(graph.edges_in, axis=2).max() > 0.01
    else:
        assert "mel" not in params
        np.testing.assert_array_equal(graph.edges_in, 0.0)
    nodes, edges = graph.nodes_in, graph.edges_in
    for layer in range(2):
        gcn = {"params": params[f"gcn{layer}"], "batch_stats": stats[f"gcn{layer}"]}
        nodes, edges, eta = evaluate(GatedGCNLayer(), gcn, nodes, edges)
        close(graph.gates[layer], eta)
    close(graph.nodes_out, nodes)
    close(graph.edges_out, edges)
    joined = np.concatenate([nodes[:, i] for i in range(EVENTS)], axis=-1)
    close(out.scene_logits, joined @ params["scene"]["kernel"] + params["scene"]["bias"])
    assert len({np.float32(z).tobytes() for z in out.scene_logits}) == CLIPS


@pytest.mark.parametrize("fields", [{}, {"tokens": "clip", "gate": "softmax"}])
def test_reordering_the_events_reorders_the_graph_and_leaves_the_scene(fields):
    model, x, order = tiny(**fields), spectrograms(), np.array([2, 0, 3, 1])
    variables = random_variables(model, x)
    params = dict(variables["params"])
    head = params["head"] = dict(params["head"])
    for tree, name in ((params, "events"), (head, "event_classifier")):
        per_event = ("kernel", "bias")
        tree[name] = {k: v[order] if k in per_event else v for k, v in tree[name].items()}
    rows = head["scene"]["kernel"].reshape(EVENTS, CHANNELS, SCENES)
    head["scene"] = head["scene"] | {"kernel": rows[order].reshape(-1, SCENES)}

    before = evaluate(model, variables, x)
    after = evaluate(model, variables | {"params": params}, x)

    def close(got, want):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)

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
    # Three frames: the pooling window of three makes the tokens of two alike.
    model, x = tiny(num_events=events), spectrograms(clips=2, frames=48)
    out = evaluate(model, random_variables(model, x, sharpness=1.0), x)
    assert out.graph.edges_out.shape == (2, events, events, CHANNELS)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out))
    assert np.ptp(out.scene_logits) > 0
    assert events == 1 or np.ptp(out.graph.edges_in, axis=2).max() > 1e-3


def test_clips_do_not_influence_each_other():
    model, x = tiny(cnn6()), spectrograms()
    variables = random_variables(model, x)
    together = evaluate(model, variables, x)
    again = evaluate(model, variables, np.concatenate([x[:1], 5.0 - 3.0 * x[1:]]))
    for a, b in zip(vars(together).values(), vars(again).values(), strict=True):
        for old, new in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            axis = old.ndim - 4 if old.ndim == 5 else 0  # gates have the layers first
            np.testing.assert_allclose(new.take(0, axis), old.take(0, axis), rtol=1e-5, atol=1e-5)
            assert np.abs(new.take(1, axis) - old.take(1, axis)).max() > 1e-3


def test_scene_dropout_is_off_in_evaluation_and_on_in_training():
    model, x = tiny(dropout=0.5), spectrograms()
    variables = random_variables(model, x)
    first, second = (evaluate(model, variables, x).scene_logits for _ in range(2))
    np.testing.assert_array_equal(first, second)

    @jax.jit
    def train(key):
        return model.apply(variables, x, train=True, rngs={"dropout": key}, mutable="batch_stats")[
            0
        ]

    one, two = (train(jax.random.key(seed, impl="rbg")) for seed in (1, 2))
    assert np.abs(one.scene_logits - two.scene_logits).max() > 0.01
    assert np.abs(one.graph.tokens - two.graph.tokens).max() > 0.01


def test_bfloat16_computes_near_float32():
    x = spectrograms()
    model, half = tiny(cnn6()), tiny(cnn6(jnp.bfloat16), dtype=jnp.bfloat16)
    out, stored = shapes_of(half, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(stored)} == {jnp.dtype("float32")}
    assert out.scene_logits.dtype == out.event_logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(out.graph)} == {jnp.dtype("bfloat16")}
    _, updated = jax.eval_shape(
        lambda: half.apply(
            jax.tree.map(lambda a: jnp.zeros(a.shape), stored), x, train=True, mutable="batch_stats"
        )
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(updated)} == {jnp.dtype("float32")}
    variables = random_variables(model, x, sharpness=1.0)
    want, got = evaluate(model, variables, x), evaluate(half, variables, x)
    for a, b in zip(jax.tree.leaves(want), jax.tree.leaves(got), strict=True):
        assert np.abs(a - b).max() < 0.05 * np.abs(a).max()


# Gradients

LAST_EDGES = {"head/gcn1/BatchNormReLU_0/bias", "head/gcn1/BatchNormReLU_0/scale"}


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
        (
            {"tokens": "clip"},
            LAST_EDGES
            | {f"head/mel/nnm/_Projections_0/{name}/kernel" for name in ("query", "key")},
        ),
    ],
)
def test_gradients_reach_all_parameters_but_these(fields, dead):
    model, x = tiny(**fields), spectrograms(clips=6)
    variables = random_variables(model, x)
    rng = np.random.default_rng(3)
    scenes, events = rng.integers(SCENES, size=6), rng.uniform(size=(6, EVENTS))

    @functools.partial(jax.jit, compiler_options=QUICK)
    def gradients(params):
        def loss(params):
            out, _ = model.apply(
                variables | {"params": params}, x, train=True, mutable="batch_stats"
            )
            scene = -jax.nn.log_softmax(out.scene_logits)[jnp.arange(6), scenes].mean()
            return scene + ((jax.nn.sigmoid(out.event_logits) - events) ** 2).mean()

        return jax.grad(loss)(params)

    grads = {
        "/".join(key.key for key in path): np.asarray(g)
        for path, g in jax.tree_util.tree_leaves_with_path(gradients(variables["params"]))
    }
    assert all(np.isfinite(g).all() for g in grads.values())
    assert {name for name, g in grads.items() if not g.any()} == dead


# build


def tiny_config(**overrides):
    config = paper.get_config("synthetic")
    config.update_from_flattened_dict(overrides)
    return config.model


def test_build_passes_every_field_on():
    config = tiny_config(
        **{
            "model.channels": 12,
            "model.tokens": "clip",
            "model.mel": False,
            "model.gcn.layers": 3,
            "model.gcn.gate": "softmax",
            "model.dropout": 0.1,
            "model.compute_dtype": "bfloat16",
            "model.encoder.architecture": "cnn6",
            "model.encoder.width_divisor": 16,
            "model.encoder.dropout": 0.3,
        }
    )
    encoder = Encoder("cnn6", 16, 0.3, "batch", jnp.bfloat16)
    built = registry.build(config, num_scenes=7, num_events=9, axis_name="batch")
    assert built == ERGL(
        7, 9, encoder, 12, "clip", False, 3, "softmax", 0.1, axis_name="batch", dtype=jnp.bfloat16
    )
    config = tiny_config(**{"model.name": "cnn", "model.dropout": 0.1})
    built = registry.build(config, num_scenes=7, num_events=0)
    assert built == CNN(7, Encoder("cnn10", 8, 0.0), 0.1)


def test_the_cnn_has_scene_logits_alone():
    model, x = CNN(SCENES, Encoder("cnn6", width_divisor=16)), spectrograms()
    variables = random_variables(model, x)
    params = variables["params"]
    out = evaluate(model, variables, x)
    encoder = {"params": params["encoder"], "batch_stats": variables["batch_stats"]["encoder"]}
    h = np.asarray(evaluate(model.encoder, encoder, x))
    z = h.max(axis=1) + h.mean(axis=1)
    g = np.maximum(z @ params["shared"]["kernel"] + params["shared"]["bias"], 0)
    want = g @ params["scene"]["kernel"] + params["scene"]["bias"]
    np.testing.assert_allclose(out.scene_logits, want, rtol=1e-4, atol=1e-4)
    assert out.event_logits is None and out.graph is None
