"""Metrics against scikit-learn, temperature scaling against known temperatures."""

import warnings

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn import metrics as oracle

from ergl_jax.training import metrics


@pytest.fixture
def scenes():
    """Logits (80, 5), mostly right, and scenes (80,) of unequal frequency."""
    rng = np.random.default_rng(0)
    truth = rng.choice(5, 80, p=[0.5, 0.2, 0.15, 0.1, 0.05])
    return (rng.normal(size=(80, 5)) + 1.5 * np.eye(5)[truth]).astype(np.float32), truth


def test_scene_metrics_equal_scikit_learns(scenes):
    logits, truth = scenes
    found, predicted = metrics.scene_metrics(logits, truth), logits.argmax(axis=1)
    assert found["class_mean_accuracy"] != pytest.approx(found["accuracy"])
    assert found == pytest.approx(
        {
            "class_mean_accuracy": oracle.balanced_accuracy_score(truth, predicted),
            "accuracy": oracle.accuracy_score(truth, predicted),
            "scene_loss": oracle.log_loss(truth, softmax(logits.astype(np.float64), axis=1)),
        }
    )
    large = metrics.scene_metrics(np.float32([[1e4, 0], [0, 1e4]]), np.array([0, 0]))
    assert large["scene_loss"] == pytest.approx(5e3)


def test_a_scene_without_clips_is_left_out_of_the_mean(scenes):
    logits, truth = (x[scenes[1] != 2] for x in scenes)
    predicted = logits.argmax(axis=1)
    assert 2 in predicted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # predictions that are no true scene
        expected = oracle.balanced_accuracy_score(truth, predicted)
    assert metrics.scene_metrics(logits, truth)["class_mean_accuracy"] == pytest.approx(expected)
    accuracy = metrics.class_accuracy(metrics.confusion(truth, predicted, 5))
    assert np.isnan(accuracy).tolist() == [False, False, True, False, False]


def test_accuracy_by_value_equals_scikit_learns(scenes):
    logits, truth = scenes
    predicted = logits.argmax(axis=1)
    devices = np.random.default_rng(0).choice(["b", "a", "s10", ""], len(truth)).tolist()
    found = metrics.accuracy_by(predicted == truth, devices)
    assert list(found) == sorted(set(devices))
    for device, values in found.items():
        which = np.array(devices) == device
        expected = oracle.accuracy_score(truth[which], predicted[which])
        assert values == {"accuracy": pytest.approx(expected), "clips": which.sum()}


def test_event_metrics_equal_scikit_learns():
    rng = np.random.default_rng(1)
    labels = rng.random((50, 4)).astype(np.float32)
    probabilities = np.clip(labels + rng.normal(0, 0.4, labels.shape), 0, 1).astype(np.float32)
    found = metrics.event_metrics(probabilities, labels, threshold=0.7)
    precision = oracle.average_precision_score(labels >= 0.7, probabilities, average="macro")
    assert found["event_map"] == pytest.approx(precision)
    assert found["event_mse"] == pytest.approx(np.mean((probabilities - labels) ** 2), rel=1e-5)
    assert found["event_mae"] == pytest.approx(np.mean(np.abs(probabilities - labels)), rel=1e-5)


def test_events_in_no_clip_or_all_clips_are_left_out_of_the_mean():
    labels = np.float32([[0, 1, 0.5], [0, 1, 0], [0, 1, 0]])
    probabilities = np.float32([[0.9, 0.1, 0.4], [0.1, 0.1, 0.6], [0.1, 0.2, 0.2]])
    found = metrics.event_metrics(probabilities, labels, threshold=0.5)
    assert found["event_map"] == 0.5  # the third event's: its only clip is ranked second
    assert metrics.event_metrics(probabilities, labels, threshold=2.0)["event_map"] is None


def draw(temperature, clips=20_000):
    """Logits (N, 5), too confident by `temperature`, and scenes drawn from the true ones."""
    rng = np.random.default_rng(0)
    true = 2 * rng.standard_normal((clips, 5))
    uniform = rng.random((clips, 1))
    scenes = (uniform > softmax(true, axis=1).cumsum(axis=1)[:, :-1]).sum(axis=1)
    return (temperature * true).astype(np.float32), scenes


@pytest.mark.parametrize("temperature", [0.4, 3.0])
def test_the_temperature_of_drawn_scenes_is_found(temperature):
    logits, scenes = draw(temperature)
    assert metrics.fit_temperature(logits, scenes) == pytest.approx(temperature, rel=0.03)
    after = metrics.calibration_errors(logits, scenes, temperature)
    assert after["expected_calibration_error"] < 0.02
    assert after["expected_calibration_error_before"] > 0.1


def test_the_temperature_has_the_least_cross_entropy_within_its_range():
    logits, scenes = draw(2.0, clips=50)

    def loss(temperature):
        return -log_softmax(logits / temperature, axis=1)[np.arange(50), scenes].mean()

    found = metrics.fit_temperature(logits, scenes)
    assert loss(found) <= min(loss(t) for t in np.geomspace(*metrics.TEMPERATURES, 200)) + 1e-9
    wrong = metrics.fit_temperature(1e4 * logits, scenes[::-1])
    assert wrong == pytest.approx(metrics.TEMPERATURES[1], rel=1e-3)
    assert metrics.fit_temperature(np.eye(4), np.arange(4)) == 1.0  # every clip is right


def test_calibration_error_equals_a_plain_loop():
    logits, scenes = draw(2.0, clips=300)
    p = softmax(logits / 1.5, axis=1)
    top, right = p.max(axis=1), p.argmax(axis=1) == scenes
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (top >= low) & (top < low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(top[inside].mean() - right[inside].mean())
    assert metrics.expected_calibration_error(logits, scenes, 1.5) == pytest.approx(expected)


def test_clips_of_one_scene_are_counted_without_a_warning():
    assert metrics.confusion(np.zeros(3, int), np.zeros(3, int), 1).tolist() == [[3]]
