"""Laws of edge learning.

equivalence/ compares NCM, NNM and GAP, their gradients too, with equations 1 to 4 pair by pair.
"""

import numpy as np

from ergl_jax.models.edges import EdgeLearning, NodePairs

EVENTS, TOKENS, CHANNELS = 4, 3, 5


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
