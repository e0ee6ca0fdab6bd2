"""The dynamic event graph: correlations, laws, and no gradient from the scene to activities."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from made_systems import KEY, drawn, features

from ergl_jax import registry
from ergl_jax.config import ModelConfig
from ergl_jax.models import Encoder
from ergl_jax.models.dynamic import (
    BLUR,
    LAGS,
    DynamicEventGraph,
    activity_loss,
    by_encoder_frame,
    event_graph,
    frames_loss,
    pool_activity,
)
from ergl_jax.models.output import Output

CLIPS, FRAMES, MELS, EVENTS, SCENES = 2, 64, 16, 4, 3
STEP = 0.08  # seconds
graph = jax.jit(event_graph, static_argnums=1)


def activities(clips=3, events=EVENTS, frames=60, seed=0):
    """Bursts of random levels, (B, n, T)."""
    rng = np.random.default_rng(seed)
    on = rng.random((clips, events, frames // 5)) < 0.3
    return np.float32(np.repeat(on, 5, axis=2) * rng.uniform(0.7, 1, (clips, events, frames)))


def burst(frames, start, stop):
    return np.float32((np.arange(frames) >= start) & (np.arange(frames) < stop))


def model(**fields):
    encoder = Encoder("cnn6", width_divisor=16, dropout=0.0, time_pools=2)
    return DynamicEventGraph(SCENES, EVENTS, encoder, frame_seconds=0.02, **fields)


def test_edges_are_correlations_at_a_lag():
    p = activities()
    _, edges = graph(p, STEP)
    frames = p.shape[2]
    q = np.float64(p - p.mean(axis=2, keepdims=True))
    presence = np.clip((p.max(axis=2) - 0.2) / 0.4, 0, 1)
    for b, i, j, k in np.ndindex(3, EVENTS, EVENTS, len(LAGS)):
        total = 0.0
        for t in range(frames):
            for s in range(frames):
                weight = max(0.0, 1 - abs((s - t) * STEP - LAGS[k]) / BLUR) * STEP / BLUR
                total += weight * q[b, j, t] * q[b, i, s]
        size = np.sqrt((q[b, i] ** 2).sum() * (q[b, j] ** 2).sum()) + 0.02 * frames
        want = 0 if i == j else presence[b, i] * presence[b, j] * total / size
        np.testing.assert_allclose(edges[b, i, j, k], want, atol=1e-5)


def test_nodes_are_share_and_presence():
    p = np.zeros((1, 3, 50), np.float32)
    p[0, 0, 10:20], p[0, 1, 30:35], p[0, 1, 40:45] = 1.0, 0.4, 0.2
    nodes, _ = graph(p, STEP)
    np.testing.assert_allclose(nodes[0], [[0.2, 1], [0.06, 0.5], [0, 0]], atol=1e-6)


@pytest.mark.parametrize("lag", [0, 1, 3, 6])
def test_the_strongest_lag_is_the_delay(lag):
    delay = round(LAGS[lag] / STEP)
    p = np.stack([burst(120, 30, 36), burst(120, 30 + delay, 36 + delay)])[None]
    edges = np.asarray(graph(p, STEP)[1])[0]
    assert edges[1, 0].argmax() == lag  # 1 follows 0
    assert edges[1, 0, lag] > 0.3
    if lag:
        assert edges[0, 1].max() <= 0.5 * edges[1, 0, lag]
    else:
        np.testing.assert_allclose(edges[0, 1, 0], edges[1, 0, 0], rtol=1e-5)


def test_lags_are_in_seconds():
    """The same sounds at half the time step have the same graph, up to what the step rounds."""
    coarse = activities(frames=60)
    fine = np.repeat(coarse, 2, axis=2)
    for a, b in zip(graph(coarse, 2 * STEP), graph(fine, STEP), strict=True):
        np.testing.assert_allclose(a, b, atol=0.03)


def test_permuting_events_permutes_the_graph():
    p, order = activities(), np.random.default_rng(1).permutation(EVENTS)
    (nodes, edges), (nodes_, edges_) = graph(p, STEP), graph(p[:, order], STEP)
    np.testing.assert_allclose(nodes_, np.asarray(nodes)[:, order], atol=1e-6)
    np.testing.assert_allclose(edges_, np.asarray(edges)[:, order][:, :, order], atol=1e-6)


def test_silent_events_have_no_edges():
    p = activities()
    p[:, 1] *= 0.2  # never above the least that counts as present
    edges = np.asarray(graph(p, STEP)[1])
    assert not edges[:, 1].any() and not edges[:, :, 1].any() and edges.any()


def test_constant_activities_have_no_edges():
    """What sounds throughout neither precedes nor follows anything."""
    edges = graph(np.ones((1, 3, 40), np.float32), STEP)[1]
    np.testing.assert_allclose(edges, 0, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "linear"])
def test_pooling(pooling):
    p = activities() * 0.9 + 0.01
    want = p.mean(axis=2) if pooling == "mean" else (p**2).sum(axis=2) / p.sum(axis=2)
    np.testing.assert_allclose(pool_activity(jnp.asarray(p), pooling), want, rtol=1e-4)


def test_it_cannot_be_built_without_the_time_of_a_frame():
    """No hop is assumed: lags in seconds would be wrong."""
    saved = dataclasses.replace(ModelConfig(), name="ergl_dynamic", variant="events")
    sizes = {"num_scenes": SCENES, "num_events": EVENTS}
    with pytest.raises(ValueError, match="needs frame_seconds"):
        registry.build(saved, **sizes)
    assert registry.build(saved, **sizes, frame_seconds=0.02).frame_seconds == 0.02


def test_pooling_of_another_name():
    with pytest.raises(ValueError, match="max"):
        pool_activity(jnp.ones((1, 1, 2)), "max")


def test_the_loss_of_shares_and_presences():
    p = activities() * 0.9 + 0.01
    share, y = p.mean(axis=2), (p**2).sum(axis=2) / p.sum(axis=2)
    labels = np.float32([[0, 0.1, 0.5, 1]] * 3)
    output = Output(
        None, np.log(share / (1 - share)), event_logits_by_frame=np.log(p / (1 - p)).swapaxes(1, 2)
    )
    want = 0.0
    for q, target in ((share, labels), (y, labels > 0)):
        want -= (target * np.log(q) + (1 - target) * np.log(1 - q)).mean()
    found = activity_loss(output, scene=np.ones((3, 1)), events=labels)
    np.testing.assert_allclose(found["loss"], want, rtol=1e-4)


@pytest.fixture(scope="module")
def computed():
    m, x = model(), features(CLIPS, FRAMES, MELS)
    variables = drawn(m, x)
    return m, variables, x, jax.jit(lambda v: m.apply(v, x, train=False))(variables)


def test_the_scene_does_not_reach_the_activities(computed):
    m, variables, x, _ = computed

    def scene(params, part):
        output = m.apply(variables | {"params": params}, x, train=False)
        return getattr(output, part).sum()

    for part, reached in (("scene_logits", False), ("event_logits", True)):
        gradient = jax.jit(jax.grad(scene), static_argnums=1)(variables["params"], part)
        for name in ("encoder", "activity"):
            leaves = jax.tree.leaves(gradient[name])
            assert any(np.any(leaf) for leaf in leaves) is reached
        assert any(np.any(leaf) for leaf in jax.tree.leaves(gradient["readout"])) is not reached


def test_logits_are_the_sum_of_their_terms(computed):
    m, variables, _, output = computed
    nodes, edges = (
        np.asarray(x, np.float64) for x in (output.graph.nodes_in, output.graph.edges_in)
    )
    readout = variables["params"]["readout"]
    by_node = readout["nodes"]["kernel"].reshape(EVENTS, -1, SCENES)
    by_edge = readout["edges"]["kernel"].reshape(EVENTS, EVENTS, len(LAGS), SCENES)
    total = readout["nodes"]["bias"].astype(np.float64)
    total = total + np.einsum("bik,iks->bs", nodes, by_node)
    total = total + np.einsum("bijk,ijks->bs", edges, by_edge)
    np.testing.assert_allclose(output.scene_logits, total, rtol=1e-4, atol=1e-4)
    read = m.apply(variables, output.graph.nodes_in, output.graph.edges_in, method="read")
    np.testing.assert_allclose(read, output.scene_logits, rtol=1e-5, atol=1e-5)


def test_shapes_and_time_step(computed):
    _, _, _, output = computed
    assert output.event_logits_by_frame.shape == (CLIPS, FRAMES // 4, EVENTS)  # two pools in time
    assert output.graph.edges_in.shape == (CLIPS, EVENTS, EVENTS, len(LAGS))
    width = output.graph.nodes_in[0].size + output.graph.edges_in[0].size
    assert output.embedding.shape == (CLIPS, width)


def test_without_edges():
    m, x = model(edges=False), features(CLIPS, FRAMES, MELS)
    variables = jax.jit(lambda: m.init(KEY, x, train=False))()
    assert not np.any(m.apply(variables, x, train=False).graph.edges_in)


@pytest.mark.parametrize("pools", [2, 3])
@pytest.mark.parametrize("frames", [15, 16, 61, 100, 201])
def test_labels_are_pooled_as_the_encoder_pools(frames, pools):
    """An oracle: the encoder's own pools, which drop an odd last frame each time."""
    encoder = Encoder("cnn6", width_divisor=16, dropout=0.0, time_pools=pools)
    shape = jax.eval_shape(
        lambda: encoder.init_with_output(KEY, jnp.zeros((1, frames, 16)), train=False)[0]
    ).shape
    x = want = np.random.default_rng(0).random((2, frames, 3), np.float32)
    for _ in range(pools):
        want = nn.avg_pool(want, (2,), (2,))
    assert want.shape[1] == shape[1]
    np.testing.assert_allclose(by_encoder_frame(jnp.asarray(x), shape[1]), want, rtol=1e-5)


def test_frames_loss_is_least_at_the_labels_and_shifts_with_them():
    def loss(logits, activity):
        empty = jnp.zeros((2, EVENTS))
        output = Output(empty, event_logits_by_frame=jnp.asarray(logits))
        return frames_loss(output, scene=empty, events=empty, activity=jnp.asarray(activity))

    rng = np.random.default_rng(0)
    activity = np.repeat(rng.random((2, 25, EVENTS), np.float32), 8, axis=1)  # 8 frames a step
    p = activity[:, ::8]
    logits = np.log(p) - np.log1p(-p)
    least = loss(logits, np.pad(activity, ((0, 0), (0, 5), (0, 0))))["loss"]  # 5 frames are dropped
    entropy = -(p * np.log(p) + (1 - p) * np.log1p(-p)).mean()
    np.testing.assert_allclose(least, entropy, rtol=1e-5)
    np.testing.assert_allclose(
        loss(np.roll(logits, 1, axis=1), np.roll(activity, 8, axis=1))["loss"], least, rtol=1e-5
    )
    for shift in (-1, 1):
        assert loss(np.roll(logits, shift, axis=1), activity)["loss"] > least + 0.1
