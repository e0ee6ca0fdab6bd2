"""Scene probabilities that can be taken at their word (temperature scaling, arXiv 1706.04599)."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

BINS = 15
LIMITS = 0.1, 10.0  # of a temperature


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """What to divide logits (N, scenes) by for the least cross entropy with scenes (N,).

    Within LIMITS. 1 where every clip is right: the least would be at zero then, and all certain.
    """
    if (logits.argmax(axis=1) == truth).all():
        return 1.0
    logits = logits.astype(np.float64)

    def cross_entropy(log_temperature: float) -> float:
        log_probabilities = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -log_probabilities[np.arange(len(truth)), truth].mean()

    return float(np.exp(minimize_scalar(cross_entropy, bounds=np.log(LIMITS), method="bounded").x))


def expected_calibration_error(logits: np.ndarray, truth: np.ndarray, temperature: float) -> float:
    """The expected calibration error of logits (N, scenes) for scenes (N,), 0 to 1.

    Clips are put in BINS equal bins by the probability p of the scene that they are given; it is
    the mean over clips of the difference between their bin's mean p and its share of right ones.
    """
    probabilities = softmax(logits.astype(np.float64) / temperature, axis=1)
    p, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=p - right, minlength=BINS)  # the gap times the clips
    return float(np.abs(gaps).sum() / len(truth))
