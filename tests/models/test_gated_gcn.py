"""The dense gated graph convolution against jraph's GraphNetwork.

equivalence/ compares it, its gradients and its statistics with the equations pair by pair.
"""

import functools

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest

from ergl_jax.models.gated_gcn import GatedGCNLayer, to_graphs_tuple

CLIPS, NODES, CHANNELS = 2, 4, 3
SHAPE = (CLIPS, NODES, CHANNELS)
EDGES, NODE = "BatchNormReLU_0", "BatchNormReLU_1"  # the BatchNorm of ê, and of the nodes
# Compiling is most of the time here.
QUICK = {"xla_backend_optimization_level": 0}


def graph(seed=0):
    rng = np.random.default_rng(seed)
    h = np.float32(rng.normal(size=SHAPE))
    e = np.float32(rng.normal(size=(CLIPS, NODES, NODES, CHANNELS)))
    return h, e


def variables():
    """Everything random: no scale or variance is 1, no offset or mean 0."""
    rng = np.random.default_rng(5)

    def norm(*fields):
        return {
            "scale" if fields[0] == "scale" else "var": np.float32(rng.uniform(0.5, 2, CHANNELS)),
            fields[1]: np.float32(rng.normal(size=CHANNELS)),
        }

    params = {n: {"kernel": np.float32(rng.normal(size=(CHANNELS, CHANNELS)))} for n in "ABCUV"}
    params |= {name: norm("scale", "bias") for name in (EDGES, NODE)}
    stats = {name: norm("var", "mean") for name in (EDGES, NODE)}
    return {"params": params, "batch_stats": stats}


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK)
def run(layer, train, v, h, e):
    """((h', e', gates), updated statistics)."""
    return layer.apply(v, h, e, train=train, mutable="batch_stats")


def by_jraph(v, graphs, gate, train):
    """The same layer as a jraph.GraphNetwork on the sparse form."""
    p, stats, n = v["params"], v["batch_stats"], NODES

    def linear(name, x):
        return x @ p[name]["kernel"]

    def norm(name, x):
        s = {"mean": x.mean(0), "var": x.var(0)} if train else stats[name]
        return (x - s["mean"]) / jnp.sqrt(s["var"] + 1e-5) * p[name]["scale"] + p[name]["bias"]

    def update_edge(edges, sent, received, globals_):
        e_hat = linear("A", received) + linear("B", sent) + linear("C", edges)
        edges = edges + jnp.maximum(norm(EDGES, e_hat), 0)
        weight = jax.nn.sigmoid(e_hat) if gate == "sigmoid" else jnp.exp(jax.nn.sigmoid(edges))
        return {"e": edges, "weight": weight, "message": weight * linear("V", sent)}

    def update_node(nodes, sent, received, globals_):
        total = received["weight"] + 1e-6 if gate == "sigmoid" else received["weight"] * n
        raw = linear("U", nodes) + received["message"] / total
        return nodes + jnp.maximum(norm(NODE, raw), 0)

    out = jraph.GraphNetwork(update_edge, update_node)(graphs)
    return out._replace(edges=out.edges["e"])


@pytest.mark.parametrize("gate", ["sigmoid", "softmax"])
@pytest.mark.parametrize("train", [False, True])
def test_equals_jraphs_graph_network(gate, train):
    v, (h, e) = variables(), graph()
    (nodes, edges, eta), _ = run(GatedGCNLayer(gate), train, v, h, e)
    # Distinct enough that receivers and senders can't be swapped unnoticed.
    assert np.abs(eta - eta.swapaxes(1, 2)).max() > 0.02
    mine = to_graphs_tuple(nodes, edges)
    theirs = by_jraph(v, to_graphs_tuple(jnp.asarray(h), jnp.asarray(e)), gate, train)
    np.testing.assert_allclose(mine.nodes, theirs.nodes, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(mine.edges, theirs.edges, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(mine.senders, theirs.senders)
    np.testing.assert_array_equal(mine.receivers, theirs.receivers)


def test_statistics_are_shared_over_the_mapped_axis():
    """Two replicas with half of the clips each see the statistics of all."""
    v, (h, e) = variables(), graph()
    whole = run(GatedGCNLayer(), True, v, h, e)
    layer = GatedGCNLayer(axis_name="batch")
    replicas = jax.vmap(
        lambda h, e: layer.apply(v, h, e, train=True, mutable="batch_stats"), axis_name="batch"
    )
    (nodes, edges, eta), stats = jax.jit(replicas)(h[:, None], e[:, None])
    parts = ((nodes[:, 0], edges[:, 0], eta[:, 0]), jax.tree.map(lambda x: x[0], stats))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), whole, parts)


def test_unknown_gate_is_named():
    h, e = graph()
    with pytest.raises(ValueError, match="gate='relu' is not one of: sigmoid, softmax"):
        GatedGCNLayer("relu").apply(variables(), h, e, train=False)


def test_graphs_tuple_has_receivers_and_senders():
    n, clips = 3, 2
    nodes = np.float32([[[100 * b + i] for i in range(n)] for b in range(clips)])
    edges = np.float32(
        [[[[100 * b + 10 * i + j] for j in range(n)] for i in range(n)] for b in range(clips)]
    )
    graphs = to_graphs_tuple(nodes, edges)
    assert graphs.globals is None
    np.testing.assert_array_equal(graphs.n_node, [3, 3])
    np.testing.assert_array_equal(graphs.n_edge, [9, 9])
    pairs = set()
    for edge, receiver, sender in zip(graphs.edges, graphs.receivers, graphs.senders, strict=True):
        b, rest = divmod(int(edge[0]), 100)
        i, j = divmod(rest, 10)
        assert graphs.nodes[receiver] == 100 * b + i and graphs.nodes[sender] == 100 * b + j
        pairs.add((b, i, j))
    assert pairs == set(np.ndindex(clips, n, n))
    # What jraph sums over receivers is the dense sum over j.
    received = jraph.segment_sum(jnp.asarray(graphs.edges), graphs.receivers, clips * n)
    np.testing.assert_array_equal(received.reshape(clips, n, 1), edges.sum(axis=2))


def test_graphs_tuple_refuses_edges_of_other_nodes():
    h, e = graph()
    with pytest.raises(ValueError, match="do not pair all nodes"):
        to_graphs_tuple(h, e[:, :3])
