"""MEL against its equations, written out token by token and pair by pair in float64."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ergl_jax.kernels import attention
from ergl_jax.kernels.attention import MAX_CACHED_LOGITS, MAX_LOGITS
from ergl_jax.models.edges import EdgeLearning, NodeContext, NodePairs
from ergl_jax.models.ergl import GraphHead, GraphReadout
from ergl_jax.models.gated_gcn import GatedGCNLayer

CLIPS, EVENTS, TOKENS, CHANNELS = 2, 4, 3, 5


def draw(seed, *shape):
    return np.float32(np.random.default_rng(seed).normal(size=shape))


def projections(seed):
    """Wq, Wk, Wv (C, C), large enough that no attention is near uniform."""
    names = ("query", "key", "value")
    return {
        name: {"kernel": 1.2 * draw(seed + k, CHANNELS, CHANNELS)} for k, name in enumerate(names)
    }


def attend(query, key, value, p):
    """softmax(query Wq (key Wk)' / sqrt(d)) value Wv, a query token at a time; (T, C) each."""
    wq, wk, wv = (np.float64(p[name]["kernel"]) for name in ("query", "key", "value"))
    rows = []
    for token in query:
        logits = np.array([(token @ wq) @ (other @ wk) for other in key]) / np.sqrt(len(token))
        weights = np.exp(logits) / np.exp(logits).sum()
        rows.append(sum(w * (other @ wv) for w, other in zip(weights, value, strict=True)))
    return np.stack(rows)


def naive_ncm(v, p):
    """Eq. 1, 2."""
    v = np.float64(v)
    everything = v.reshape(v.shape[0], -1, v.shape[-1])  # the tokens of all events
    return np.stack(
        [
            [attend(v[b, i], everything[b], everything[b], p) for i in range(v.shape[1])]
            for b in range(len(v))
        ]
    )


def naive_nnm_gap(s, p):
    """Eq. 3, 4: R_ij = NNM(S_j, S_i) asks with S_j and answers from S_i; e_ij is its token mean."""
    s = np.float64(s)
    clips, events, _, channels = s.shape
    e = np.empty((clips, events, events, channels))
    for b, i, j in np.ndindex(clips, events, events):
        e[b, i, j] = attend(s[b, j], s[b, i], s[b, i], p).mean(axis=0)
    return e


def test_ncm_equals_the_equations():
    v, p = draw(0, CLIPS, EVENTS, TOKENS, CHANNELS), projections(1)
    got = NodeContext().apply({"params": {"_Projections_0": p}}, v)
    assert got.shape == v.shape
    np.testing.assert_allclose(got, naive_ncm(v, p), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 2, TOKENS])
def test_nnm_and_gap_equal_the_equations(tokens):
    s, p = draw(0, CLIPS, EVENTS, tokens, CHANNELS), projections(1)
    got = NodePairs().apply({"params": {"_Projections_0": p}}, s)
    want = naive_nnm_gap(s, p)
    assert got.shape == (CLIPS, EVENTS, EVENTS, CHANNELS)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    # Distinct enough that receiver and sender can't be swapped unnoticed.
    off_diagonal = ~np.eye(EVENTS, dtype=bool)
    assert np.abs(want - want.swapaxes(1, 2))[:, off_diagonal].max(axis=-1).min() > 0.05


def test_mel_is_ncm_then_nnm_each_with_its_own_projections():
    v = draw(0, CLIPS, EVENTS, TOKENS, CHANNELS)
    params = {
        "ncm": {"_Projections_0": projections(1)},
        "nnm": {"_Projections_0": projections(4)},
    }
    shapes = jax.eval_shape(lambda: EdgeLearning().init(jax.random.key(0), v))["params"]
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, params)
    got = EdgeLearning().apply({"params": params}, v)
    want = naive_nnm_gap(naive_ncm(v, projections(1)), projections(4))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_an_edge_depends_on_its_sender_only_with_several_tokens():
    s, p = draw(0, 1, EVENTS, TOKENS, CHANNELS), {"params": {"_Projections_0": projections(1)}}
    spread = np.ptp(NodePairs().apply(p, s), axis=2)  # over the senders j
    assert spread.max(axis=-1).min() > 0.05
    single = NodePairs().apply(p, s[:, :, :1])
    np.testing.assert_array_equal(np.ptp(single, axis=2), 0.0)
    # With one token the edge is its receiver's value: softmax over one key is 1.
    value = s[:, :, 0] @ p["params"]["_Projections_0"]["value"]["kernel"]
    np.testing.assert_allclose(single[:, :, 0], value, rtol=1e-5, atol=1e-6)


def test_edges_do_not_see_when_tokens_occur():
    """Attention has no positions: shuffling each event's tokens by itself changes no edge.

    So MEL can't line events up in time; that two sound together must be in the tokens already.
    """
    v = draw(0, 1, EVENTS, TOKENS, CHANNELS)
    params = {"ncm": {"_Projections_0": projections(1)}, "nnm": {"_Projections_0": projections(4)}}
    shuffled = np.random.default_rng(2).permuted(np.arange(TOKENS)[None].repeat(EVENTS, 0), axis=1)
    assert len({tuple(order) for order in shuffled}) > 1
    moved = np.take_along_axis(v, shuffled[None, :, :, None], axis=2)
    edges, same = (EdgeLearning().apply({"params": params}, x) for x in (v, moved))
    np.testing.assert_allclose(same, edges, rtol=1e-5, atol=1e-5)
    # Tokens that change owner do change the edges.
    mixed = np.concatenate([v[:, ::-1, :1], v[:, :, 1:]], axis=2)
    assert np.abs(EdgeLearning().apply({"params": params}, mixed) - edges).max() > 1e-2


def test_clips_do_not_meet():
    v = draw(0, CLIPS, EVENTS, TOKENS, CHANNELS)
    params = {"ncm": {"_Projections_0": projections(1)}, "nnm": {"_Projections_0": projections(4)}}
    both = EdgeLearning().apply({"params": params}, v)
    changed = EdgeLearning().apply({"params": params}, np.stack([v[0], 3.0 - v[1]]))
    np.testing.assert_array_equal(both[0], changed[0])
    assert np.abs(both[1] - changed[1]).max() > 0.1


@pytest.mark.parametrize(
    ("events", "most", "cached"),
    [
        *((4, most, 288) for most in (1, 100, 150, 287)),
        *((5, most, 450) for most in (150, 449)),  # the last of three blocks is short
        *((5, 450, cached) for cached in (449, 225)),  # clip by clip, as on CPU
        *((5, 450, cached) for cached in (224, 100, 50, 25)),  # and each in blocks
    ],
)
def test_blocks_and_turns_change_nothing(events, most, cached, monkeypatch):
    """From an event or a token at a time to two blocks and three, and clips in turn."""
    v = draw(0, CLIPS, events, TOKENS, CHANNELS)
    params = {"ncm": {"_Projections_0": projections(1)}, "nnm": {"_Projections_0": projections(4)}}
    params = jax.tree.map(lambda x: x / 2, params)  # sharp attention would magnify rounding
    weights = draw(9, CLIPS, events, events, CHANNELS)

    def found(most, cached):
        monkeypatch.setattr(attention, "MAX_LOGITS", most)
        monkeypatch.setattr(attention, "MAX_CACHED_LOGITS", cached)

        def loss(params, v):
            edges = EdgeLearning().apply({"params": params}, v)
            return (weights * edges).sum(), edges

        program = jax.make_jaxpr(loss)(params, v)
        gradients, edges = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, v)
        return str(program).count("remat"), edges, gradients

    logits = CLIPS * (events * TOKENS) ** 2
    none, *whole = found(logits, logits)
    some, *blocked = found(most, cached)
    assert (none, some > 0) == (0, True)

    def close(one, other):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * np.abs(other).max())

    jax.tree.map(close, blocked, whole)


@pytest.mark.parametrize(("platform", "loops"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_only_a_cpu_takes_clip_after_clip(platform, loops, monkeypatch):
    monkeypatch.setattr(attention, "MAX_CACHED_LOGITS", CLIPS * (EVENTS * TOKENS) ** 2 - 1)
    v = draw(0, CLIPS, EVENTS, TOKENS, CHANNELS)
    params = {"ncm": {"_Projections_0": projections(1)}, "nnm": {"_Projections_0": projections(4)}}
    gradient = jax.jit(jax.grad(lambda p: EdgeLearning().apply({"params": p}, v).sum()))
    text = gradient.trace(params).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.while" in text) == loops


def test_the_papers_size_is_one_block():
    assert 512 * (25 * 31) ** 2 < MAX_LOGITS


@pytest.mark.parametrize("limit", ["MAX_LOGITS", "MAX_CACHED_LOGITS"])
def test_blocks_are_permuted_with_the_events(limit, monkeypatch):
    monkeypatch.setattr(attention, limit, 100)
    v, order = draw(0, CLIPS, EVENTS, TOKENS, CHANNELS), np.array([2, 0, 3, 1])
    params = {"ncm": {"_Projections_0": projections(1)}, "nnm": {"_Projections_0": projections(4)}}
    edges, moved = (EdgeLearning().apply({"params": params}, x) for x in (v, v[:, order]))
    np.testing.assert_allclose(moved, edges[:, order][:, :, order], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("events", "cached", "gigabytes"),
    [(100, 2**40, 8), (400, 2**40, 60), (60, MAX_CACHED_LOGITS, 2), (100, MAX_CACHED_LOGITS, 4)],
)
def test_a_batch_of_64_fits_by_plan(events, cached, gigabytes, monkeypatch):
    """The head's gradient, in blocks as on a card, then clip by clip as on CPU.

    By the CPU's plan, from which a GPU's may differ. Whole: 15 and 234 GB.
    """
    monkeypatch.setattr(attention, "MAX_CACHED_LOGITS", cached)
    head = GraphHead(GraphReadout(num_scenes=10))
    v = jax.ShapeDtypeStruct((64, events, 31, 64), jnp.float32)
    variables = jax.eval_shape(
        lambda: head.init(jax.random.key(0), jnp.zeros(v.shape), train=False)
    )

    @jax.jit
    def gradient(variables, v):
        def loss(params, v):
            rngs = {"dropout": jax.random.key(0)}
            output, _ = head.apply(
                variables | {"params": params}, v, train=True, rngs=rngs, mutable="batch_stats"
            )
            return (output.scene_logits**2).sum() + (output.event_logits**2).sum()

        return jax.grad(loss, argnums=(0, 1))(variables["params"], v)

    plan = gradient.lower(variables, v).compile().memory_analysis()
    needed = plan.temp_size_in_bytes + plan.argument_size_in_bytes + plan.output_size_in_bytes
    assert needed < gigabytes * 1e9


def test_bfloat16_stays_near_float32():
    v = draw(0, CLIPS, EVENTS, TOKENS, CHANNELS)
    params = {"ncm": {"_Projections_0": projections(1)}, "nnm": {"_Projections_0": projections(4)}}
    full = EdgeLearning().apply({"params": params}, v)
    half = EdgeLearning(jnp.bfloat16).apply({"params": params}, v.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert np.abs(half - full).max() < 0.1 * np.abs(full).max()


def test_both_softmaxes_stay_float32():
    v = jnp.zeros((CLIPS, EVENTS, TOKENS, CHANNELS), jnp.bfloat16)
    key = jax.random.key(0)
    jaxpr = jax.make_jaxpr(lambda: EdgeLearning(jnp.bfloat16).init_with_output(key, v)[0])()
    assert re.findall(r":(\w+)\[[\d,]*\] = exp ", str(jaxpr)) == ["f32", "f32"]


@pytest.mark.parametrize(("gate", "train"), [("sigmoid", True), ("softmax", False)])
def test_gradient_of_mel_and_gcn_by_finite_differences(gate, train):
    clips, events, tokens, channels = 2, 3, 2, 3
    v = draw(0, clips, events, tokens, channels)
    mel, gcn = EdgeLearning(), GatedGCNLayer(gate)
    weights = draw(9, clips, events, channels), draw(10, clips, events, events, channels)
    nodes, edges = weights
    key, rng = jax.random.key(0), np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: (mel.init(key, v), gcn.init(key, nodes, edges, train=False)))
    params = jax.tree.map(
        lambda x: jnp.float32(0.5 * rng.normal(size=x.shape)), [s["params"] for s in shapes]
    )
    stats = jax.tree.map(lambda x: jnp.full(x.shape, 0.5), shapes[1]["batch_stats"])

    @jax.jit
    def loss(params, v):
        e = mel.apply({"params": params[0]}, v)
        variables = {"params": params[1], "batch_stats": stats}
        (h, e, _), _ = gcn.apply(variables, v.mean(axis=2), e, train=train, mutable="batch_stats")
        return (h * weights[0]).sum() + (e * weights[1]).sum()

    check_grads(loss, (params, v), order=1, modes=("rev",), eps=1e-3, atol=2e-2, rtol=2e-2)
