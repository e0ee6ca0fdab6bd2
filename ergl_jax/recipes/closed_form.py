"""Trainers other than SGD, by the names of `train.trainer`.

Each is (variables, predict, dataset) -> variables: {"params", "batch_stats"} of numpy arrays;
predict is by `make_predict`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ergl_jax.datasets.builder import SceneDataset
from ergl_jax.datasets.scene_split import SceneSplit
from ergl_jax.errors import InputError
from ergl_jax.recipes.ensemble_selection import select_ensemble
from ergl_jax.recipes.sparse_relations import Graphs, fit_relations
from ergl_jax.recipes.svm import fit_svm
from ergl_jax.training import evaluate
from ergl_jax.training.step import replicate


def svm(variables: dict, predict: Callable, dataset: SceneDataset) -> dict:
    """MLTF's layer `svm`, fitted to the embeddings of training clips; validation selects C."""
    train, validation = _embeddings(variables, predict, dataset.split("train")), None
    if "validation" in dataset.sizes:
        validation = _embeddings(variables, predict, dataset.split("validation"))
    try:
        layer = fit_svm(*train, num_scenes=len(dataset.scenes), validation=validation)
    except ValueError as error:  # such as a single scene
        raise InputError(f"train.trainer='svm' on {dataset.name}: {error}") from error
    return variables | {"params": variables["params"] | {"svm": layer}}


def relations(variables: dict, predict: Callable, dataset: SceneDataset) -> dict:
    """The readout of the dynamic event graph, fitted to the graphs of training clips."""
    readout = variables["params"]["readout"]
    n = len(variables["params"]["activity"]["events"]["bias"])
    width = len(readout["nodes"]["kernel"])

    def graphs(split: str) -> tuple[Graphs, np.ndarray]:
        embedding, scene = _embeddings(variables, predict, dataset.split(split))
        nodes, edges = np.split(embedding, [width], axis=1)
        return Graphs(nodes.reshape(-1, n, width // n), edges.reshape(len(edges), n, n, -1)), scene

    try:
        weights = fit_relations(
            *graphs("train"),
            num_scenes=len(dataset.scenes),
            validation=graphs("validation") if "validation" in dataset.sizes else None,
        )
    except ValueError as error:
        raise InputError(f"train.trainer='relations' on {dataset.name}: {error}") from error
    fitted = {
        "nodes": {"kernel": weights.nodes, "bias": weights.bias},
        "edges": {"kernel": weights.edges},
    }
    return variables | {"params": variables["params"] | {"readout": fitted}}


def ensemble(variables: dict, predict: Callable, dataset: SceneDataset) -> dict:
    """The `weights` of NNF's members, selected on validation; without it they stay equal."""
    if "validation" not in dataset.sizes:
        return variables
    embedding, scene = _embeddings(variables, predict, dataset.split("validation"))
    stats = variables["batch_stats"]
    probabilities = embedding.reshape(len(scene), len(stats["weights"]), -1).swapaxes(0, 1)
    weights = select_ensemble(probabilities, scene).astype(np.float32)
    return variables | {"batch_stats": stats | {"weights": weights}}


def _embeddings(variables: dict, predict: Callable, split: SceneSplit) -> tuple[Any, np.ndarray]:
    """Embeddings (N, D) and scenes (N,) of a split."""
    found = evaluate.predict(predict, replicate(variables), split)
    return found.embedding, found.scene


TRAINERS = {"relations": relations, "svm": svm, "ensemble": ensemble}
