"""Edge learning against its equations, token by token and pair by pair in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ergl_jax.models.edges import EdgeLearning, NodeContext, NodePairs
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


MEL = {
    "params": {"ncm": {"_Projections_0": projections(1)}, "nnm": {"_Projections_0": projections(4)}}
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
    """Eq. 3, 4: the queries of R_ij are of S_j, its keys and values of S_i; e_ij is its mean."""
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


@pytest.mark.parametrize("tokens", [1, TOKENS])
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
    shapes = jax.eval_shape(lambda: EdgeLearning().init(jax.random.key(0), v))
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, MEL)
    got = EdgeLearning().apply(MEL, v)
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


def test_edges_ignore_the_order_of_tokens():
    """Attention has no positions: shuffling each event's tokens by itself changes no edge.

    So MEL cannot align events in time; that two sound together must be in the tokens already.
    """
    v = draw(0, 1, EVENTS, TOKENS, CHANNELS)
    shuffled = np.random.default_rng(2).permuted(np.arange(TOKENS)[None].repeat(EVENTS, 0), axis=1)
    assert len({tuple(order) for order in shuffled}) > 1
    moved = np.take_along_axis(v, shuffled[None, :, :, None], axis=2)
    edges, same = (EdgeLearning().apply(MEL, x) for x in (v, moved))
    np.testing.assert_allclose(same, edges, rtol=1e-5, atol=1e-5)
    # Tokens that change owner do change the edges.
    mixed = np.concatenate([v[:, ::-1, :1], v[:, :, 1:]], axis=2)
    assert np.abs(EdgeLearning().apply(MEL, mixed) - edges).max() > 1e-2


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
