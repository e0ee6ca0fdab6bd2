"""Runs compared: exact and closed forms of the scores' uncertainty."""

from pathlib import Path

import numpy as np
import pytest

from ergl_jax.errors import InputError
from ergl_jax.recipes import comparison
from ergl_jax.recipes.comparison import Run


def run(name, right, classes=2, **settings):
    """A run whose N clips, of `classes` in turn, are right or wrong."""
    predictions = {}
    for i, good in enumerate(right):
        scene = f"s{i % classes}"
        predictions[f"{i}.wav"] = (scene, scene if good else "other")
    return Run(Path(name), settings, predictions, [])


def test_mcnemar_is_the_binomial_test():
    first, second = np.ones(40, bool), np.ones(40, bool)
    first[:2], second[2:12] = False, False
    found = comparison.compare([run("a", first), run("b", second)])
    entry = found["runs"][1]
    assert (entry["only_this_right"], entry["only_first_right"]) == (2, 10)
    # Two of twelve fair coins or fewer, and as many of the other side.
    assert entry["p"] == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert entry["difference"] == pytest.approx(-8 / 40)


def test_intervals_are_those_of_a_binomial():
    rng = np.random.default_rng(1)
    right = rng.random(2000) < 0.8
    low, high = comparison.compare([run("a", right)])["runs"][0]["interval"]
    width = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 2000)
    assert (low + high) / 2 == pytest.approx(right.mean(), abs=2e-3)
    assert (high - low) / 2 == pytest.approx(width, rel=0.1)


def test_a_run_against_itself():
    right = np.arange(30) % 3 > 0
    entry = comparison.compare([run("a", right), run("b", right)])["runs"][1]
    assert entry["p"] == 1 and entry["difference_interval"] == [0, 0]


def test_classes_count_alike_whatever_their_size():
    predictions = {f"{i}": ("large", "large") for i in range(9)} | {"x": ("small", "large")}
    found = comparison.compare([Run(Path("a"), {}, predictions, [])])
    assert found["runs"][0]["class_mean_accuracy"] == 0.5


def test_different_settings_and_clips():
    a, b = run("a", [True] * 4, seed=0, epochs=3), run("b", [True] * 4, seed=1, epochs=3)
    assert comparison.different_settings([a, b]) == {"seed": [0, 1]}
    with pytest.raises(InputError, match="different clips"):
        comparison.compare([a, run("b", [True] * 5)])
