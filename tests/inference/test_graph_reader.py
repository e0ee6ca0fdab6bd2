"""Altered graphs are read as they should be, and contributions are derivatives of that."""

import jax
import made_readouts
import numpy as np
import pytest

from ergl_jax.inference import graph as graphs
from ergl_jax.inference.graph import GraphReader, scene_log_odds, without_events
from ergl_jax.models.ergl import GraphReadout

N, CHANNELS = 4, 3


@pytest.fixture(scope="module")
def reader():
    return made_readouts.smooth(N, CHANNELS)


@pytest.fixture(scope="module")
def parts():
    return made_readouts.graph(N, CHANNELS)


def log_odds(reader, parts, nodes_kept, edges_kept, scene):
    logits = reader.read(*parts, nodes_kept[None], edges_kept[None])
    return float(scene_log_odds(logits, scene)[0])


@pytest.mark.parametrize("scene", [0, 2])
def test_log_odds_are_those_of_the_softmax(scene):
    logits = np.array([[1.0, -2.0, 0.5], [8.0, 0.0, 3.0]])
    p = np.exp(logits)[:, scene] / np.exp(logits).sum(axis=1)
    np.testing.assert_allclose(scene_log_odds(logits, scene), np.log(p / (1 - p)), rtol=1e-5)


@pytest.mark.parametrize("scene", [0, 1])
def test_gradient_times_input_is_the_derivative_by_the_mask(reader, parts, scene):
    nodes, edges = reader.contributions(*parts, scene)
    h = 1e-2
    for index in (*np.ndindex(N), *np.ndindex(N, N)):
        ends = []
        for step in (h, -h):
            masks = np.ones(N), np.ones((N, N))
            masks[len(index) - 1][index] += step
            ends.append(log_odds(reader, parts, *masks, scene))
        found = (nodes if len(index) == 1 else edges)[index]
        assert found == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=2e-3), index
    assert np.abs(nodes).min() > 2e-3 and np.abs(edges).max() > 0.1  # the test could fail


def test_integrated_gradients_add_up_to_the_difference(reader, parts):
    whole = log_odds(reader, parts, np.ones(N), np.ones((N, N)), 0)
    empty = log_odds(reader, parts, np.zeros(N), np.zeros((N, N)), 0)
    errors = []
    for steps in (2, 32):
        nodes, edges = reader.contributions(*parts, 0, steps=steps)
        errors.append(abs(nodes.sum() + edges.sum() - (whole - empty)))
    assert errors[1] < 0.01 * abs(whole - empty) and errors[1] < errors[0]
    nodes, edges = reader.contributions(*parts, 0)
    assert abs(nodes.sum() + edges.sum() - (whole - empty)) > 0.1  # the gradient alone does not


def test_contributions_to_a_linear_readout_are_its_terms():
    nodes, edges = made_readouts.graph(N, CHANNELS)
    rng = np.random.default_rng(2)
    by_node, by_edge = rng.normal(size=N), rng.normal(size=(N, N))
    linear = made_readouts.linear(by_node, by_edge)
    for steps in (0, 5):
        found = linear.contributions(nodes, edges, 0, steps=steps)
        np.testing.assert_allclose(found[0], by_node * nodes.sum(-1), rtol=1e-4)
        np.testing.assert_allclose(found[1], by_edge * edges.sum(-1), rtol=1e-4, atol=1e-6)


def test_many_alterations_are_read_as_each_alone(reader, parts, monkeypatch):
    rng = np.random.default_rng(3)
    masks = rng.random((7, N)) < 0.5, rng.random((7, N, N)) < 0.5
    at_once = reader.read(*parts, *masks)
    monkeypatch.setattr(graphs, "ALTERED_EDGES", 3 * N * N)  # three at a time, the last filled up
    np.testing.assert_allclose(reader.read(*parts, *masks), at_once, rtol=1e-5)
    for k in range(7):
        alone = reader.read(
            parts[0] * masks[0][k][:, None],
            parts[1] * masks[1][k][..., None],
            np.ones((1, N)),
            np.ones((1, N, N)),
        )
        np.testing.assert_allclose(alone[0], at_once[k], rtol=1e-4, atol=1e-5)


def test_an_event_goes_with_all_its_edges():
    nodes, edges = without_events(np.array([[False, True, False]]))
    assert nodes.tolist() == [[True, False, True]]
    assert edges[0].tolist() == [[True, False, True], [False] * 3, [True, False, True]]


def test_permuted_events_have_permuted_contributions():
    """Of ERGL's own readout, whose last layer alone knows the events apart."""
    order = np.array([2, 0, 3, 1])
    nodes, edges = made_readouts.graph(N, CHANNELS)
    readout = GraphReadout(num_scenes=3)
    variables = jax.device_get(
        readout.init(jax.random.key(0), nodes[None], edges[None], train=False)
    )
    kernel = np.random.default_rng(0).normal(size=(N, CHANNELS, 3)).astype(np.float32)

    def contributions(kernel, nodes, edges):
        scene = variables["params"]["scene"] | {"kernel": kernel.reshape(-1, 3)}
        used = variables | {"params": variables["params"] | {"scene": scene}}
        reader = GraphReader(lambda *parts: readout.apply(used, *parts, train=False)[0])
        return reader.contributions(nodes, edges, 1)

    first = contributions(kernel, nodes, edges)
    second = contributions(kernel[order], nodes[order], edges[np.ix_(order, order)])
    np.testing.assert_allclose(second[0], first[0][order], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(second[1], first[1][np.ix_(order, order)], rtol=1e-3, atol=1e-5)
    assert np.abs(second[1] - first[1]).max() > 1e-3
