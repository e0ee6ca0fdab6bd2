"""What a run reports: scenes as DCASE counts them, events against their soft labels."""

import warnings

import numpy as np
from sklearn.metrics import average_precision_score, confusion_matrix


def confusion(truth: np.ndarray, predicted: np.ndarray, num_scenes: int) -> np.ndarray:
    """Counts (scenes, scenes): rows are the true scenes, columns the predicted ones."""
    return confusion_matrix(truth, predicted, labels=np.arange(num_scenes))


def class_accuracy(counts: np.ndarray) -> np.ndarray:
    """The accuracy (recall) of each scene of a confusion matrix; NaN where it has no clip."""
    total = counts.sum(axis=1)
    return np.where(total > 0, counts.diagonal() / np.maximum(total, 1), np.nan)


def scene_metrics(logits: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Of logits (N, scenes) and scenes (N,): accuracy, its mean over classes, cross entropy.

    `class_mean_accuracy` is DCASE's score: the mean of the accuracies of the scenes that have
    clips, each counted once.
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
    """Of (N, n) each: mean squared and absolute error, and mean average precision.

    An event counts as present where its label is at least `threshold`; events present in no clip,
    or in all, have no average precision and stay out of the mean (None if none is left).
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
