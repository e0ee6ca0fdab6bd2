"""Weights of an ensemble by greedy selection on validation clips."""

import numpy as np

from ergl_jax.training.metrics import scene_metrics

ROUNDS = 20


def select_ensemble(probabilities: np.ndarray, scene: np.ndarray) -> np.ndarray:
    """The weights (members,) of the best weighted mean of scene probabilities.

    Greedy selection with replacement: in each of ROUNDS rounds, the member joins that makes the
    mean over all joined members best. The weights are each member's share in the best of these
    means, the earliest of equals. Better is a higher class mean accuracy, then a lower cross
    entropy.

    Args:
      probabilities: (members, N, S), of each member for the validation clips.
      scene: (N,), their scenes.
    """
    members = len(probabilities)
    probabilities = probabilities.astype(np.float64)
    counts, total = np.zeros(members), np.zeros(probabilities.shape[1:])
    best, weights = (-np.inf, -np.inf), counts
    for joined in range(1, ROUNDS + 1):
        scores = [_score((total + vote) / joined, scene) for vote in probabilities]
        member = max(range(members), key=scores.__getitem__)  # the first of equals
        counts[member] += 1
        total += probabilities[member]
        if scores[member] > best:
            best, weights = scores[member], counts / joined
    return weights


def _score(probabilities: np.ndarray, scene: np.ndarray) -> tuple[float, float]:
    """Class mean accuracy and minus the cross entropy: greater is better."""
    logits = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    metrics = scene_metrics(logits, scene)
    return metrics["class_mean_accuracy"], -metrics["scene_loss"]
