"""A linear support vector machine on the embeddings of a trained network.

Shapes: N training clips, V validation clips, D features, S scenes.
"""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from ergl_jax.training.metrics import scene_metrics

GRID = (0.01, 0.1, 1.0, 10.0, 100.0)  # of the penalty C


def fit_svm(
    features: np.ndarray,
    scene: np.ndarray,
    *,
    num_scenes: int,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """The kernel (D, S) and bias (S,) of a dense layer: one linear SVM against the rest per scene.

    Args:
      features: (N, D) of the training clips.
      scene: (N,).
      num_scenes: S, at least 2.
      validation: features (V, D) and scenes (V,); their class mean accuracy selects C from GRID,
        the smallest of equals. Without them C is 1.

    Raises:
      ValueError: fewer than two scenes, or one without a training clip.
    """
    if missing := set(range(num_scenes)) - set(scene.tolist()):
        raise ValueError(f"no training clip of scene number {', '.join(map(str, sorted(missing)))}")
    if validation is None:
        return _fit(features, scene, 1.0)
    layers = [_fit(features, scene, c) for c in GRID]
    scores = [
        scene_metrics(validation[0] @ layer["kernel"] + layer["bias"], validation[1])
        for layer in layers
    ]
    return layers[int(np.argmax([score["class_mean_accuracy"] for score in scores]))]


def _fit(features: np.ndarray, scene: np.ndarray, c: float) -> dict[str, np.ndarray]:
    svm = LinearSVC(C=c, max_iter=10_000, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # validation judges it as it is
        svm.fit(features, scene)
    kernel, bias = svm.coef_.T, svm.intercept_
    if len(svm.classes_) == 2:  # scikit-learn then has only the second scene's decision value
        kernel, bias = np.hstack([-kernel, kernel]), np.concatenate([-bias, bias])
    return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
