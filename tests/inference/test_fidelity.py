"""Deletion and insertion curves, and counterfactuals, where the right answer is known."""

import itertools

import made_readouts
import numpy as np
import pytest

from ergl_jax.inference import fidelity
from ergl_jax.inference.contributions import scene_log_odds, without_events

WEIGHTS = np.array([0.1, -0.7, 1.6, 0.4, -0.2, 2.5, -1.1, 0.9])
N = len(WEIGHTS)


def ones(n):
    return np.ones((n, 1), np.float32), np.ones((n, n, 1), np.float32)


def test_curves_end_at_the_whole_graph_and_the_empty_one():
    reader, graph = made_readouts.smooth(5, 3), made_readouts.graph(5, 3)
    masks = np.array([1, 0, 1]), np.array([1, 0, 0])
    kept = (np.ones((3, 5)) * masks[0][:, None], np.ones((3, 5, 5)) * masks[1][:, None, None])
    whole, empty, without_edges = np.asarray(scene_log_odds(reader.read(*graph, *kept), 1))
    for values, end in ((np.arange(5.0), empty), (np.arange(25.0).reshape(5, 5), without_edges)):
        curves = fidelity.curves(reader, *graph, 1, values)
        assert curves.shares[0] == 0 and curves.shares[-1] == 1
        for order in ("explanation", "random", "reverse"):
            np.testing.assert_allclose(curves.delete[order][[0, -1]], [whole, end], rtol=1e-4)
            np.testing.assert_allclose(curves.insert[order][[0, -1]], [end, whole], rtol=1e-4)


def test_each_point_removes_the_first_of_the_order():
    curves = fidelity.curves(made_readouts.linear(WEIGHTS), *ones(N), 0, WEIGHTS)
    best = np.sort(WEIGHTS)[::-1]
    for curve, expected in (
        (curves.delete["explanation"], [best[k:].sum() for k in range(N + 1)]),
        (curves.insert["explanation"], [best[:k].sum() for k in range(N + 1)]),
        (curves.insert["reverse"], [best[::-1][:k].sum() for k in range(N + 1)]),
    ):
        np.testing.assert_allclose(curve, expected, atol=1e-5)
    area = np.trapezoid(curves.insert["explanation"], dx=1 / N)
    np.testing.assert_allclose(curves.areas["insert"]["explanation"], area)


def test_the_right_order_is_the_best_of_forty_and_the_wrong_one_the_worst():
    by_edge = np.random.default_rng(0).normal(size=(N, N))
    for reader, weights in (
        (made_readouts.linear(WEIGHTS), WEIGHTS),
        (made_readouts.linear(np.zeros(N), by_edge), by_edge),
    ):
        right = fidelity.curves(reader, *ones(N), 0, weights)
        assert right.delete_chance == right.insert_chance == 1 / 40 and right.is_better_than_chance
        wrong = fidelity.curves(reader, *ones(N), 0, -weights)
        assert wrong.delete_chance == wrong.insert_chance == 1 and not wrong.is_better_than_chance
    assert right.what == "edges" and len(right.shares) == fidelity.MAX_POINTS
    assert fidelity.curves(reader, *ones(N), 0, by_edge.T).delete_chance > 1 / 40


def test_p_values_of_random_orders_are_uniform():
    reader = made_readouts.linear(WEIGHTS)
    p = np.array(
        [
            fidelity.curves(
                reader, *ones(N), 0, np.random.default_rng(k).normal(size=N), seed=k
            ).delete_chance
            for k in range(40)
        ]
    )
    assert 0.35 < p.mean() < 0.65 and (p <= fidelity.SIGNIFICANCE).sum() <= 6
    assert p.max() > 0.8 and p.min() < 0.2


def test_a_readout_without_effect_and_a_single_event():
    curves = fidelity.curves(made_readouts.linear(np.zeros(N)), *ones(N), 0, WEIGHTS)
    assert curves.delete_chance == curves.insert_chance == 1
    for values in (np.ones(1), np.ones((1, 1))):
        curves = fidelity.curves(made_readouts.linear([1.0]), *ones(1), 0, values)
        assert curves.shares.tolist() == [0, 1] and curves.delete_chance == 1


@pytest.mark.parametrize("seed", range(3))
def test_the_counterfactual_is_that_of_brute_force(seed):
    n = 6
    reader, graph = made_readouts.smooth(n, 2, seed=seed), made_readouts.graph(n, 2, seed=seed)
    removed = np.array(list(itertools.product([False, True], repeat=n)))
    logits = reader.read(*graph, *without_events(removed))
    scene = int(logits[0].argmax())
    log_odds, scenes = np.asarray(scene_log_odds(logits, scene)), logits.argmax(axis=1)
    changed = [
        (row.sum(), log_odds[k], tuple(np.flatnonzero(row)), int(scenes[k]))
        for k, row in enumerate(removed)
        if scenes[k] != scene
    ]
    expected = None
    if changed:
        _, _, events, other = min(changed)
        expected = fidelity.Counterfactual(events, other, smallest=True)
    assert fidelity.counterfactual(reader, *graph, scene) == expected


def test_no_counterfactual_if_even_the_empty_graph_has_the_scene(monkeypatch):
    reader = made_readouts.linear(np.full(N, -0.01), bias=1.0)
    for max_sets in (fidelity.MAX_SETS, N):
        monkeypatch.setattr(fidelity, "MAX_SETS", max_sets)
        assert fidelity.counterfactual(reader, *ones(N), 0) is None


def test_many_events_are_removed_one_after_another(monkeypatch):
    monkeypatch.setattr(fidelity, "MAX_SETS", N)
    weights = np.linspace(1.0, 1.1, N)
    bias = 0.3 - weights[:4].sum()
    reader = made_readouts.linear(weights, bias=bias)  # the four heaviest are not quite enough
    found = fidelity.counterfactual(reader, *ones(N), 0)
    assert found == fidelity.Counterfactual((7, 6, 5, 4, 3), 1, smallest=False)
