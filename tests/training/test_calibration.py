"""Temperature scaling against closed forms and a plain loop."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from ergl_jax.training.calibration import LIMITS, expected_calibration_error, fit_temperature


def drawn(temperature: float, clips: int = 20_000):
    """Logits (N, 5) that are too bold by `temperature`, and scenes drawn from the true ones."""
    rng = np.random.default_rng(0)
    true = 2 * rng.standard_normal((clips, 5))
    uniform = rng.random((clips, 1))
    scenes = (uniform > softmax(true, axis=1).cumsum(axis=1)[:, :-1]).sum(axis=1)
    return (temperature * true).astype(np.float32), scenes


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_of_drawn_scenes_is_found(temperature):
    logits, scenes = drawn(temperature)
    assert fit_temperature(logits, scenes) == pytest.approx(temperature, rel=0.03)


def test_it_is_the_least_cross_entropy():
    logits, scenes = drawn(2.0, clips=50)

    def loss(temperature):
        return -log_softmax(logits / temperature, axis=1)[np.arange(50), scenes].mean()

    found = fit_temperature(logits, scenes)
    assert loss(found) <= min(loss(t) for t in np.geomspace(*LIMITS, 200)) + 1e-9


def test_a_temperature_changes_no_scene_and_stays_in_its_limits():
    rng = np.random.default_rng(1)
    logits, scenes = rng.standard_normal((40, 3)), rng.integers(0, 3, 40)
    found = fit_temperature(1e4 * logits, scenes)  # wrong at random, and certain: never enough
    assert LIMITS[0] <= found <= LIMITS[1] and found == pytest.approx(LIMITS[1], rel=1e-3)
    assert (logits.argmax(1) == (logits / found).argmax(1)).all()


def test_where_every_clip_is_right_it_is_one():
    assert fit_temperature(np.eye(4), np.arange(4)) == 1.0


def test_calibration_error_by_a_plain_loop():
    logits, scenes = drawn(2.0, clips=300)
    p = softmax(logits / 1.5, axis=1)
    top, right = p.max(axis=1), p.argmax(axis=1) == scenes
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (top >= low) & (top < low + 1 / 15)
        if inside.any():
            expected += inside.sum() / 300 * abs(top[inside].mean() - right[inside].mean())
    assert expected_calibration_error(logits, scenes, 1.5) == pytest.approx(expected)


def test_calibration_error_of_known_cases():
    certain = np.array([[1e4, 0.0]] * 4)
    assert expected_calibration_error(certain, np.array([0, 0, 1, 1]), 1.0) == pytest.approx(0.5)
    assert expected_calibration_error(certain, np.zeros(4, int), 1.0) == 0.0
    bold, scenes = drawn(3.0)
    assert (
        expected_calibration_error(bold, scenes, 3.0)
        < 0.02
        < 0.1
        < expected_calibration_error(bold, scenes, 1.0)
    )
