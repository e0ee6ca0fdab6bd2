"""Scenes of altered graphs, and contributions as derivatives of them."""

import jax
import made_readouts
import numpy as np
import pytest

from ergl_jax.inference import contributions
from ergl_jax.inference.contributions import GraphReader, scene_log_odds, without_events
from ergl_jax.models.ergl import GraphReadout

N, CHANNELS = 4, 3
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def reader():
    return made_readouts.smooth(N, CHANNELS)


@pytest.fixture(scope="module")
def graph():
    return made_readouts.graph(N, CHANNELS)


def test_log_odds_are_those_of_the_softmax():
    logits = np.array([[1.0, -2.0, 0.5], [8.0, 0.0, 3.0]])
    for scene in (0, 2):
        p = np.exp(logits)[:, scene] / np.exp(logits).sum(axis=1)
        np.testing.assert_allclose(scene_log_odds(logits, scene), np.log(p / (1 - p)), rtol=1e-5)


def test_gradient_times_input_is_the_derivative_by_the_mask(reader, graph):
    nodes, edges = reader.contributions(*graph, 1)
    h = 1e-2
    for index in (*np.ndindex(N), *np.ndindex(N, N)):
        masks = np.ones((2, N)), np.ones((2, N, N))
        masks[len(index) - 1][:, *index] += h, -h
        up, down = np.asarray(scene_log_odds(reader.read(*graph, *masks), 1))
        value = (nodes if len(index) == 1 else edges)[index]
        assert value == pytest.approx((up - down) / (2 * h), abs=2e-3), index
    assert np.abs(nodes).min() > 2e-3 and np.abs(edges).max() > 0.1  # the test could fail


def test_integrated_gradients_add_up_to_the_difference(reader, graph):
    masks = np.stack([np.ones(N), np.zeros(N)]), np.stack([np.ones((N, N)), np.zeros((N, N))])
    whole, empty = np.asarray(scene_log_odds(reader.read(*graph, *masks), 0))
    errors = []
    for steps in (0, 2, 32):
        nodes, edges = reader.contributions(*graph, 0, steps=steps)
        errors.append(abs(nodes.sum() + edges.sum() - (whole - empty)))
    assert errors[2] < 0.01 * abs(whole - empty) and errors[2] < errors[1]
    assert errors[0] > 0.1  # the gradient alone does not


def test_contributions_to_a_linear_readout_are_its_terms(graph):
    nodes, edges = graph
    rng = np.random.default_rng(2)
    by_node, by_edge = rng.normal(size=N), rng.normal(size=(N, N))
    linear = made_readouts.linear(by_node, by_edge)
    for steps in (0, 5):
        on_nodes, on_edges = linear.contributions(nodes, edges, 0, steps=steps)
        np.testing.assert_allclose(on_nodes, by_node * nodes.sum(-1), rtol=1e-4)
        np.testing.assert_allclose(on_edges, by_edge * edges.sum(-1), rtol=1e-4, atol=1e-6)


def test_many_altered_graphs_are_read_as_each_alone(reader, graph, monkeypatch):
    rng = np.random.default_rng(3)
    masks = rng.random((7, N)) < 0.5, rng.random((7, N, N)) < 0.5
    together = reader.read(*graph, *masks)
    # Three at a time, the last call padded.
    monkeypatch.setattr(contributions, "EDGES_PER_CALL", 3 * N * N)
    np.testing.assert_allclose(reader.read(*graph, *masks), together, rtol=1e-5)
    ones = np.ones((1, N)), np.ones((1, N, N))
    for keep_nodes, keep_edges, logits in zip(*masks, together, strict=True):
        parts = graph[0] * keep_nodes[:, None], graph[1] * keep_edges[..., None]
        np.testing.assert_allclose(reader.read(*parts, *ones)[0], logits, rtol=1e-4, atol=1e-5)


def test_an_event_is_removed_with_all_its_edges():
    nodes, edges = without_events(np.array([[False, True, False]]))
    assert nodes.tolist() == [[True, False, True]]
    assert edges[0].tolist() == [[True, False, True], [False] * 3, [True, False, True]]


def test_permuted_events_have_permuted_contributions(graph):
    """In ERGL's own readout, where only the last layer distinguishes the events."""
    order = np.array([2, 0, 3, 1])
    nodes, edges = graph
    readout = GraphReadout(num_scenes=3)
    variables = jax.jit(lambda: readout.init(KEY, nodes[None], edges[None], train=False))()
    kernel = np.random.default_rng(0).normal(size=(N, CHANNELS, 3)).astype(np.float32)

    def contribute(kernel, nodes, edges):
        scene = variables["params"]["scene"] | {"kernel": kernel.reshape(-1, 3)}
        used = variables | {"params": variables["params"] | {"scene": scene}}
        reader = GraphReader(lambda *parts: readout.apply(used, *parts, train=False)[0])
        return reader.contributions(nodes, edges, 1)

    first = contribute(kernel, nodes, edges)
    second = contribute(kernel[order], nodes[order], edges[np.ix_(order, order)])
    np.testing.assert_allclose(second[0], first[0][order], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(second[1], first[1][np.ix_(order, order)], rtol=1e-3, atol=1e-5)
    assert np.abs(second[1] - first[1]).max() > 1e-3
