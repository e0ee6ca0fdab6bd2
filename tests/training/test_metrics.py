"""Metrics against scikit-learn."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    log_loss,
)

from ergl_jax.training import metrics


@pytest.fixture
def scenes():
    """Logits (80, 5) that are right more often than not, and uneven scenes (80,)."""
    rng = np.random.default_rng(0)
    truth = rng.choice(5, 80, p=[0.5, 0.2, 0.15, 0.1, 0.05])
    return (rng.normal(size=(80, 5)) + 1.5 * np.eye(5)[truth]).astype(np.float32), truth


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_scene_metrics_are_scikit_learns(scenes):
    logits, truth = scenes
    found = metrics.scene_metrics(logits, truth)
    predicted = logits.argmax(axis=1)
    assert found["class_mean_accuracy"] != pytest.approx(found["accuracy"])  # classes are uneven
    assert found == pytest.approx(
        {
            "class_mean_accuracy": balanced_accuracy_score(truth, predicted),
            "accuracy": accuracy_score(truth, predicted),
            "scene_loss": log_loss(truth, softmax(logits.astype(np.float64))),
        }
    )


def test_a_scene_without_clips_stays_out_of_the_mean(scenes):
    logits, truth = (x[scenes[1] != 2] for x in scenes)
    assert 2 in logits.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of predictions that are no true scene
        oracle = balanced_accuracy_score(truth, logits.argmax(axis=1))
    assert metrics.scene_metrics(logits, truth)["class_mean_accuracy"] == pytest.approx(oracle)
    accuracy = metrics.class_accuracy(metrics.confusion(truth, logits.argmax(axis=1), 5))
    assert np.isnan(accuracy).tolist() == [False, False, True, False, False]


def test_scene_loss_survives_large_logits():
    found = metrics.scene_metrics(np.float32([[1e4, 0], [0, 1e4]]), np.array([0, 0]))
    assert found["scene_loss"] == pytest.approx(5e3)


def test_confusion_counts_true_scenes_in_rows():
    counts = metrics.confusion(np.array([0, 0, 1]), np.array([1, 1, 1]), 3)
    np.testing.assert_array_equal(counts, [[0, 2, 0], [0, 1, 0], [0, 0, 0]])


def test_event_metrics_are_scikit_learns():
    rng = np.random.default_rng(1)
    labels = rng.random((50, 4)).astype(np.float32)
    probabilities = np.clip(labels + rng.normal(0, 0.4, labels.shape), 0, 1).astype(np.float32)
    found = metrics.event_metrics(probabilities, labels, threshold=0.7)
    assert found["event_mse"] == pytest.approx(np.mean((probabilities - labels) ** 2), rel=1e-5)
    assert found["event_mae"] == pytest.approx(np.mean(np.abs(probabilities - labels)), rel=1e-5)
    assert found["event_map"] == pytest.approx(
        average_precision_score(labels >= 0.7, probabilities, average="macro")
    )


def test_events_present_nowhere_or_everywhere_stay_out_of_the_mean():
    labels = np.float32([[0, 1, 0.5], [0, 1, 0], [0, 1, 0]])
    probabilities = np.float32([[0.9, 0.1, 0.4], [0.1, 0.1, 0.6], [0.1, 0.2, 0.2]])
    found = metrics.event_metrics(probabilities, labels, threshold=0.5)
    assert found["event_map"] == 0.5  # the third alone: its one clip is ranked second
    assert metrics.event_metrics(probabilities, labels, threshold=2.0)["event_map"] is None
