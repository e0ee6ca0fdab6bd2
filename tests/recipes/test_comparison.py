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
    assert (entry["this_better"], entry["first_better"]) == (2, 10)
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


def test_windows_count_as_their_recording():
    """As many windows of each recording change nothing; one that is half right is between."""
    rng = np.random.default_rng(2)
    first, second = rng.random(40) < 0.7, rng.random(40) < 0.85
    alone = [run("a", first), run("b", second)]

    def windows(run):
        return Run(
            run.path, {}, {f"{c}#{k}": x for c, x in run.predictions.items() for k in "01"}, []
        )

    mine, theirs = comparison.compare([windows(run) for run in alone]), comparison.compare(alone)
    assert (mine.pop("clips"), mine.pop("recordings")) == (80, 40)
    assert theirs.pop("clips") == theirs.pop("recordings") == 40
    assert mine == theirs
    half = {
        "a.wav#0": ("x", "x"),
        "a.wav#1": ("x", "y"),
        "b.wav": ("x", "x"),
        "c#1.wav": ("x", "y"),
    }
    none = dict.fromkeys(half, ("x", "y"))
    found = comparison.compare(
        [Run(Path(name), {}, x, []) for name, x in (("n", none), ("h", half))]
    )
    assert found["recordings"] == 3 and found["runs"][1]["class_mean_accuracy"] == 0.5
    assert (found["runs"][1]["this_better"], found["runs"][1]["first_better"]) == (2, 0)


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
