"""Scene, event and calibration metrics, and temperature scaling (arXiv 1706.04599)."""

import warnings
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import average_precision_score, confusion_matrix

from ergl_jax.bundle import MIN_CALIBRATION

CALIBRATION_BINS = 15
TEMPERATURES = 0.1, 10.0  # the range that `fit_temperature` searches


def confusion(truth: np.ndarray, predicted: np.ndarray, num_scenes: int) -> np.ndarray:
    """Counts (scenes, scenes): rows are the true scenes, columns the predicted ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there is only one scene
        return confusion_matrix(truth, predicted, labels=np.arange(num_scenes))


def class_accuracy(counts: np.ndarray) -> np.ndarray:
    """The accuracy (recall) of each scene of a confusion matrix; NaN for a scene without clips."""
    total = counts.sum(axis=1)
    return np.where(total > 0, counts.diagonal() / np.maximum(total, 1), np.nan)


def accuracy_by(right: np.ndarray, values: Sequence[str]) -> dict[str, dict[str, float]]:
    """Of each value, such as each device, the accuracy and the number of its clips.

    `right` (N,) bool says whether a clip is classified correctly, `values` (N,) its value.
    """
    known, index = np.unique(np.array(values, str), return_inverse=True)
    clips = np.bincount(index)
    accuracy = np.bincount(index, weights=right) / clips
    columns = zip(known.tolist(), accuracy.tolist(), clips.tolist(), strict=True)
    return {value: {"accuracy": share, "clips": count} for value, share, count in columns}


def scene_metrics(logits: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Accuracy, class-wise mean accuracy and cross entropy of logits (N, scenes), scenes (N,).

    `class_mean_accuracy` is DCASE's score: the mean over the scenes that have clips.
    """
    logits = logits.astype(np.float64)
    log_probabilities = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    counts = confusion(truth, logits.argmax(axis=1), logits.shape[1])
    return {
        "class_mean_accuracy": float(np.nanmean(class_accuracy(counts))),
        "accuracy": float(counts.trace() / counts.sum()),
        "scene_loss": float(-log_probabilities[np.arange(len(truth)), truth].mean()),
    }


def event_metrics(
    probabilities: np.ndarray, labels: np.ndarray, *, threshold: float
) -> dict[str, float | None]:
    """Mean squared error, mean absolute error and mean average precision, of (N, n) each.

    An event counts as present where its label is at least `threshold`. Events present in no clip
    or in all clips have no average precision and are left out of the mean; None if none remains.
    """
    error = probabilities.astype(np.float64) - labels
    present = labels >= threshold
    ranked = present.any(axis=0) & ~present.all(axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        precision = [
            average_precision_score(present[:, event], probabilities[:, event])
            for event in np.flatnonzero(ranked)
        ]
    return {
        "event_mse": float(np.square(error).mean()),
        "event_mae": float(np.abs(error).mean()),
        "event_map": float(np.mean(precision)) if precision else None,
    }


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The divisor of logits (N, scenes) with the least cross entropy on scenes (N,).

    It lies within TEMPERATURES. Exactly 1 for fewer than MIN_CALIBRATION clips, or if every clip is
    classified correctly, which leaves nothing to fit: the optimum would be 0.
    """
    if len(truth) < MIN_CALIBRATION or (logits.argmax(axis=1) == truth).all():
        return 1.0
    logits = logits.astype(np.float64)

    def cross_entropy(log_temperature: float) -> float:
        log_probabilities = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -log_probabilities[np.arange(len(truth)), truth].mean()

    bounds = np.log(TEMPERATURES)
    return float(np.exp(minimize_scalar(cross_entropy, bounds=bounds, method="bounded").x))


def expected_calibration_error(logits: np.ndarray, truth: np.ndarray, temperature: float) -> float:
    """The expected calibration error, 0 to 1, of logits (N, scenes) for scenes (N,).

    Clips are put into CALIBRATION_BINS equal bins by the probability p of their predicted scene.
    The error is the mean over clips of |mean p - accuracy| of their bin.
    """
    probabilities = softmax(logits.astype(np.float64) / temperature, axis=1)
    p, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    bins = np.minimum((p * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=p - right, minlength=CALIBRATION_BINS)  # gap times clips
    return float(np.abs(gaps).sum() / len(truth))


def calibration_errors(
    logits: np.ndarray, truth: np.ndarray, temperature: float
) -> dict[str, float]:
    """The expected calibration error without and with a temperature."""
    return {
        "expected_calibration_error_before": expected_calibration_error(logits, truth, 1.0),
        "expected_calibration_error": expected_calibration_error(logits, truth, temperature),
    }
