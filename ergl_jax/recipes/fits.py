"""What is fitted to a trained network's outputs without gradients: an SVM, an ensemble's weights.

Pure functions on arrays. They see training and validation clips; nothing of a test split belongs
here.

Shapes: N clips, D features, S scenes.
"""

import warnings
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from ergl_jax.errors import InputError
from ergl_jax.training.metrics import scene_metrics

GRID = (0.01, 0.1, 1.0, 10.0, 100.0)  # of C
ROUNDS = 20  # of ensemble selection


class SVM(NamedTuple):
    """One against the rest, for each scene: decision values are features @ kernel + bias."""

    kernel: np.ndarray  # (D, S), float32
    bias: np.ndarray  # (S,), float32
    c: float  # the penalty of errors that it was fitted with


def fit_svm(
    features: np.ndarray,
    scene: np.ndarray,
    *,
    num_scenes: int,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
) -> SVM:
    """A linear SVM that tells scenes (N,) by features (N, D).

    Args:
      features, scene: of the training clips alone.
      num_scenes: S.
      validation: features (V, D) and scenes (V,), by whose class mean accuracy C is chosen from
        GRID, the smallest of equals; without them C is 1.

    Raises:
      InputError: fewer than two scenes, or one without a training clip.
    """
    if num_scenes < 2:
        raise InputError("an SVM tells two scenes or more apart, and the data have one")
    missing = sorted(set(range(num_scenes)) - set(scene.tolist()))
    if missing:
        raise InputError(
            f"no training clip is of scene number {', '.join(map(str, missing))} of {num_scenes}, "
            "and an SVM needs some of each: train on more clips"
        )
    if validation is None:
        return _svm(features, scene, 1.0)
    fits = [_svm(features, scene, c) for c in GRID]
    scores = [
        scene_metrics(validation[0] @ fit.kernel + fit.bias, validation[1])["class_mean_accuracy"]
        for fit in fits
    ]
    return fits[int(np.argmax(scores))]


def _svm(features: np.ndarray, scene: np.ndarray, c: float) -> SVM:
    svm = LinearSVC(C=c, max_iter=10_000, random_state=0)
    with warnings.catch_warnings():
        # One that stops short of its optimum is as good as validation finds it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        svm.fit(features, scene)
    kernel, bias = svm.coef_.T, svm.intercept_
    if len(svm.classes_) == 2:  # scikit-learn has one decision value then, the second scene's
        kernel, bias = np.hstack([-kernel, kernel]), np.concatenate([-bias, bias])
    return SVM(kernel.astype(np.float32), bias.astype(np.float32), c)


def select_ensemble(probabilities: np.ndarray, scene: np.ndarray) -> np.ndarray:
    """The weights (members,) of the mean of scene probabilities that does best on validation.

    Greedy selection with replacement: ROUNDS times the member joins whose vote makes the mean of
    all that have joined best; the weights are the shares of each in the best of these means, the
    earliest of equals. Better is a higher class mean accuracy, then a lower cross entropy.

    Args:
      probabilities: (members, N, S), of each member for the validation clips.
      scene: (N,), their scenes.
    """
    members = len(probabilities)
    probabilities = probabilities.astype(np.float64)
    counts, total = np.zeros(members), np.zeros(probabilities.shape[1:])
    best, weights = None, None
    for joined in range(1, ROUNDS + 1):
        scores = [_score((total + vote) / joined, scene) for vote in probabilities]
        member = max(range(members), key=scores.__getitem__)  # the first of equals
        counts[member] += 1
        total += probabilities[member]
        if best is None or scores[member] > best:
            best, weights = scores[member], counts / joined
    return weights


def _score(probabilities: np.ndarray, scene: np.ndarray) -> tuple[float, float]:
    """Greater is better: class mean accuracy, then minus the cross entropy."""
    logits = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    found = scene_metrics(logits, scene)
    return found["class_mean_accuracy"], -found["scene_loss"]
