"""Deletion and insertion curves, and counterfactuals, where the right answer is known."""

import itertools

import made_readouts
import numpy as np
import pytest

from ergl_jax.inference import fidelity
from ergl_jax.inference.graph import scene_log_odds, without_events

WEIGHTS = np.array([0.1, -0.7, 1.6, 0.4, -0.2, 2.5, -1.1, 0.9])
N = len(WEIGHTS)
ONES = np.ones((N, 1), np.float32), np.ones((N, N, 1), np.float32)


def test_ends_of_the_curves_are_the_whole_graph_and_the_empty_one():
    reader, parts = made_readouts.smooth(5, 3), made_readouts.graph(5, 3)

    def read(nodes, edges):
        kept = np.full((1, 5), nodes), np.full((1, 5, 5), edges)
        return float(scene_log_odds(reader.read(*parts, *kept), 1)[0])

    for values, empty in (
        (np.arange(5.0), read(0, 0)),
        (np.arange(25.0).reshape(5, 5), read(1, 0)),
    ):
        found = fidelity.curves(reader, *parts, 1, values)
        assert found.shares[0] == 0 and found.shares[-1] == 1
        for order in ("explanation", "random", "reverse"):
            for curve, ends in (
                (found.delete, (read(1, 1), empty)),
                (found.insert, (empty, read(1, 1))),
            ):
                assert curve[order].shape == found.shares.shape
                np.testing.assert_allclose(curve[order][[0, -1]], ends, rtol=1e-4)


def test_each_point_removes_the_first_of_the_order():
    found = fidelity.curves(made_readouts.linear(WEIGHTS), *ONES, 0, WEIGHTS)
    best = np.sort(WEIGHTS)[::-1]
    total = WEIGHTS.sum()
    np.testing.assert_allclose(
        found.delete["explanation"], [total - best[:k].sum() for k in range(N + 1)], atol=1e-5
    )
    np.testing.assert_allclose(
        found.insert["explanation"], [best[:k].sum() for k in range(N + 1)], atol=1e-5
    )
    np.testing.assert_allclose(
        found.insert["reverse"], [best[::-1][:k].sum() for k in range(N + 1)], atol=1e-5
    )
    np.testing.assert_allclose(
        found.areas["insert"]["explanation"], np.trapezoid(found.insert["explanation"], dx=1 / N)
    )


def test_the_right_order_of_events_is_the_best_of_forty_and_the_wrong_one_the_worst():
    reader = made_readouts.linear(WEIGHTS)
    right = fidelity.curves(reader, *ONES, 0, WEIGHTS)
    assert right.delete_chance == right.insert_chance == 1 / 40
    assert right.sentence.startswith("The order of events is better than chance")
    wrong = fidelity.curves(reader, *ONES, 0, -WEIGHTS)
    assert wrong.delete_chance == wrong.insert_chance == 1
    assert wrong.sentence.startswith("The order of events is no better than chance")


def test_the_right_order_of_edges_is_the_best_of_forty_and_the_wrong_one_the_worst():
    weights = np.random.default_rng(0).normal(size=(N, N))
    reader = made_readouts.linear(np.zeros(N), weights)
    right = fidelity.curves(reader, *ONES, 0, weights)
    assert right.delete_chance == right.insert_chance == 1 / 40 and right.what == "edges"
    assert len(right.shares) == fidelity.POINTS
    assert fidelity.curves(reader, *ONES, 0, weights.T).delete_chance > 1 / 40
    assert fidelity.curves(reader, *ONES, 0, -weights).delete_chance == 1


def test_an_order_by_chance_is_no_better_than_chance():
    """Its share is any of 1/40, 2/40, ... 1, each as likely."""
    reader = made_readouts.linear(WEIGHTS)
    found = [
        fidelity.curves(reader, *ONES, 0, np.random.default_rng(k).normal(size=N), seed=k)
        for k in range(40)
    ]
    shares = np.array([curves.delete_chance for curves in found])
    assert 0.35 < shares.mean() < 0.65
    assert (shares <= fidelity.CHANCE).sum() <= 6
    assert shares.max() > 0.8 and shares.min() < 0.2


def test_a_readout_that_sees_nothing_bears_no_order_out():
    found = fidelity.curves(made_readouts.linear(np.zeros(N)), *ONES, 0, WEIGHTS)
    assert found.delete_chance == found.insert_chance == 1


def test_a_single_event_has_curves_too():
    one = np.ones((1, 1), np.float32), np.ones((1, 1, 1), np.float32)
    for values in (np.ones(1), np.ones((1, 1))):
        found = fidelity.curves(made_readouts.linear([1.0]), *one, 0, values)
        assert found.shares.tolist() == [0, 1] and found.delete_chance == 1


@pytest.mark.parametrize("seed", range(6))
def test_the_counterfactual_is_what_brute_force_finds(seed):
    n = 6
    reader, parts = made_readouts.smooth(n, 2, seed=seed), made_readouts.graph(n, 2, seed=seed)
    whole = reader.read(*parts, np.ones((1, n)), np.ones((1, n, n)))[0]
    scene = int(whole.argmax())
    wanted = None
    for size in range(1, n + 1):
        changed = []
        for removed in itertools.combinations(range(n), size):
            row = np.zeros((1, n), bool)
            row[0, list(removed)] = True
            logits = reader.read(*parts, *without_events(row))[0]
            if logits.argmax() != scene:
                changed.append(
                    (float(scene_log_odds(logits, scene)), removed, int(logits.argmax()))
                )
        if changed:
            _, removed, other = min(changed)
            wanted = fidelity.Counterfactual(removed, other, smallest=True)
            break
    assert fidelity.counterfactual(reader, *parts, scene) == wanted


def test_no_counterfactual_where_even_the_empty_graph_is_the_scene():
    assert fidelity.counterfactual(made_readouts.linear(np.zeros(N), bias=1.0), *ONES, 0) is None
    many = np.ones((20, 1), np.float32), np.ones((20, 20, 1), np.float32)
    reader = made_readouts.linear(np.full(20, -0.01), bias=1.0)
    assert fidelity.counterfactual(reader, *many, 0) is None


def test_many_events_are_removed_one_after_another():
    many = np.ones((20, 1), np.float32), np.ones((20, 20, 1), np.float32)
    weights = np.linspace(1.0, 1.1, 20)
    reader = made_readouts.linear(weights, bias=0.5 - weights[:14].sum())
    found = fidelity.counterfactual(reader, *many, 0)  # the six heaviest are not quite enough
    assert not found.smallest and found.scene == 1
    assert set(found.events) == set(range(20 - len(found.events), 20))
    removed = weights[list(found.events)]
    left = weights.sum() + 0.5 - weights[:14].sum()
    assert left - removed.sum() < 0 < left - removed[:-1].sum()
