"""Trainers without gradient descent: `train.trainer` "svm" or "ensemble"."""

from collections.abc import Callable

import numpy as np

from ergl_jax.datasets.builder import SceneDataset
from ergl_jax.recipes import fits
from ergl_jax.training import evaluate
from ergl_jax.training.step import replicate


def fit(name: str, variables: dict, predict: Callable, dataset: SceneDataset) -> dict:
    """The model's variables with what is found by the training split and, if any, validation.

    Args:
      name: "svm" for the layer `svm`, "ensemble" for the members' `weights`.
      variables: {"params", "batch_stats"} of numpy arrays.
      predict: the model's, by `make_predict`.
      dataset: of the run.
    """

    def predictions(variables: dict, split: str) -> evaluate.Predictions:
        return evaluate.predict(predict, replicate(variables), dataset.split(split))

    of_model = {"svm": _fit_svm, "ensemble": _fit_ensemble}[name]
    return of_model(variables, predictions, dataset)


def _fit_svm(variables: dict, predictions: Callable, dataset: SceneDataset) -> dict:
    """To the embeddings of training clips; what validation chooses is C."""
    train, held = predictions(variables, "train"), None
    if "validation" in dataset.sizes:
        found = predictions(variables, "validation")
        held = found.embedding, found.scene
    svm = fits.fit_svm(
        train.embedding, train.scene, num_scenes=len(dataset.scenes), validation=held
    )
    layer = {"kernel": svm.kernel, "bias": svm.bias}
    return variables | {"params": variables["params"] | {"svm": layer}}


def _fit_ensemble(variables: dict, predictions: Callable, dataset: SceneDataset) -> dict:
    """By what each member says of validation clips; without them all weigh alike, as before."""
    if "validation" not in dataset.sizes:
        return variables

    found, stats = predictions(variables, "validation"), variables["batch_stats"]
    clips, members = len(found.scene), len(stats["weights"])
    probabilities = found.embedding.reshape(clips, members, -1).swapaxes(0, 1)
    weights = fits.select_ensemble(probabilities, found.scene).astype(np.float32)
    return variables | {"batch_stats": stats | {"weights": weights}}
