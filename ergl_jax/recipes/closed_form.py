"""Trainers without gradient descent, by the names of `train.trainer`.

Each is (variables, predict, dataset) -> variables: variables are {"params", "batch_stats"} of numpy
arrays, predict is by `make_predict`, the dataset is the run's.
"""

from collections.abc import Callable

import numpy as np

from ergl_jax.datasets.builder import SceneDataset
from ergl_jax.errors import InputError
from ergl_jax.recipes.ensemble_selection import select_ensemble
from ergl_jax.recipes.svm import fit_svm
from ergl_jax.training import evaluate
from ergl_jax.training.step import replicate


def svm(variables: dict, predict: Callable, dataset: SceneDataset) -> dict:
    """MLTF's layer `svm`, fitted to the embeddings of training clips; validation selects C."""
    device_variables, validation = replicate(variables), None
    train = evaluate.predict(predict, device_variables, dataset.split("train"))
    if "validation" in dataset.sizes:
        found = evaluate.predict(predict, device_variables, dataset.split("validation"))
        validation = found.embedding, found.scene
    scenes = len(dataset.scenes)
    try:
        layer = fit_svm(train.embedding, train.scene, num_scenes=scenes, validation=validation)
    except ValueError as error:  # such as a single scene
        raise InputError(f"train.trainer='svm' on {dataset.name}: {error}") from error
    return variables | {"params": variables["params"] | {"svm": layer}}


def ensemble(variables: dict, predict: Callable, dataset: SceneDataset) -> dict:
    """The `weights` of NNF's members, selected on validation; without it they stay equal."""
    if "validation" not in dataset.sizes:
        return variables
    found = evaluate.predict(predict, replicate(variables), dataset.split("validation"))
    stats, clips = variables["batch_stats"], len(found.scene)
    members = len(stats["weights"])
    probabilities = found.embedding.reshape(clips, members, -1).swapaxes(0, 1)
    weights = select_ensemble(probabilities, found.scene).astype(np.float32)
    return variables | {"batch_stats": stats | {"weights": weights}}


TRAINERS = {"svm": svm, "ensemble": ensemble}
