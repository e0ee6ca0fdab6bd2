"""The group lasso: its optimality conditions, and that it finds the one pair that matters."""

import numpy as np
import pytest
from scipy.special import softmax

from ergl_jax.recipes import sparse_relations
from ergl_jax.recipes.sparse_relations import NODE_PENALTY, Graphs, fit_relations, logits

N, EVENTS, FEATURES, LAGS, SCENES = 120, 4, 2, 3, 3


def drawn(seed=0):
    """Graphs of noise; scenes 0 and 1 differ in edge (2, 1) alone, scene 2 in node 0."""
    rng = np.random.default_rng(seed)
    scene = np.arange(N) % SCENES
    nodes = rng.normal(size=(N, EVENTS, FEATURES))
    edges = 0.3 * rng.normal(size=(N, EVENTS, EVENTS, LAGS))
    edges[:, 2, 1, 1] += np.choose(scene, [1, -1, 0])
    nodes[:, 0, 0] += 3 * (scene == 2)
    return Graphs(np.float32(nodes), np.float32(edges)), scene


@pytest.mark.parametrize("relaxed", [1.0, 0.03])
def test_optimality(relaxed, monkeypatch):
    """At the minimum each kept pair's gradient balances the penalty; a dropped one's is smaller."""
    monkeypatch.setattr(sparse_relations, "RELAXED", relaxed)
    graphs, scene = drawn()
    weights = fit_relations(graphs, scene, num_scenes=SCENES)
    error = softmax(np.float64(logits(weights, graphs)), axis=1) - np.eye(SCENES)[scene]
    edges = np.float64(graphs.edges.reshape(N, -1))
    gradient = (edges.T @ error / N).reshape(EVENTS, EVENTS, -1)
    kernel = weights.edges.reshape(EVENTS, EVENTS, -1)
    penalty, kept = relaxed * sparse_relations.WITHOUT_VALIDATION, 0
    for i, j in zip(*np.triu_indices(EVENTS), strict=True):
        w, g = (np.concatenate([x[i, j], x[j, i]][: 1 + (i != j)]) for x in (kernel, gradient))
        if norm := np.linalg.norm(w):
            kept += 1
            scale = penalty if i != j else penalty / np.sqrt(2)
            np.testing.assert_allclose(g, -scale * w / norm, atol=2e-4)
        elif relaxed == 1:
            assert np.linalg.norm(g) <= penalty * 1.01
    assert 1 <= kept < 10
    nodes = np.float64(graphs.nodes.reshape(N, -1))
    np.testing.assert_allclose(nodes.T @ error / N, -2 * NODE_PENALTY * weights.nodes, atol=2e-4)
    np.testing.assert_allclose(error.mean(axis=0), 0, atol=2e-4)


def test_relaxing_adds_no_pair(monkeypatch):
    graphs, scene = drawn()
    few = fit_relations(graphs, scene, num_scenes=SCENES)
    monkeypatch.setattr(sparse_relations, "RELAXED", 1.0)
    selected = fit_relations(graphs, scene, num_scenes=SCENES)

    def pairs(weights):
        return np.any(weights.edges.reshape(EVENTS, EVENTS, -1), axis=2)

    assert not (pairs(few) & ~pairs(selected)).any()
    assert np.abs(few.edges).sum() > np.abs(selected.edges).sum()


def test_finds_the_pair_that_separates_the_scenes():
    graphs, scene = drawn()
    weights = fit_relations(graphs, scene, num_scenes=SCENES, validation=drawn(1))
    size = np.linalg.norm(weights.edges.reshape(EVENTS, EVENTS, -1), axis=2)
    size = size + size.T
    assert {*map(int, np.unravel_index(size.argmax(), size.shape))} == {1, 2}
    held_out, truth = drawn(2)
    assert (logits(weights, held_out).argmax(axis=1) == truth).mean() > 0.85


def test_same_graphs_same_relations():
    graphs, scene = drawn()
    order = np.random.default_rng(3).permutation(N)
    shuffled = Graphs(*(x[order] for x in graphs))
    one = fit_relations(graphs, scene, num_scenes=SCENES)
    two = fit_relations(shuffled, scene[order], num_scenes=SCENES)
    np.testing.assert_allclose(one.edges, two.edges, atol=2e-3)


def test_no_edges_at_all():
    graphs, scene = drawn()
    weights = fit_relations(
        graphs._replace(edges=np.zeros_like(graphs.edges)), scene, num_scenes=SCENES
    )
    assert np.isfinite(weights.nodes).all() and not weights.edges.any()


@pytest.mark.parametrize("scene", [np.zeros(N, int), np.arange(N) % 2])
def test_a_scene_without_clips(scene):
    with pytest.raises(ValueError, match="scene number"):
        fit_relations(drawn()[0], scene, num_scenes=SCENES)


def test_a_single_scene():
    with pytest.raises(ValueError, match="single scene"):
        fit_relations(drawn()[0], np.zeros(N, int), num_scenes=1)
