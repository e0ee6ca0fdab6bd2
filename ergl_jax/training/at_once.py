"""Training that takes no steps: `train.fit` "svm" or "ensemble"."""

import numpy as np
from scipy.special import softmax

from ergl_jax.datasets.builder import SceneDataset
from ergl_jax.errors import InputError
from ergl_jax.inference.bundle import Bundle
from ergl_jax.training import evaluate, fits, steps

FITS = ("steps", "svm", "ensemble")


def check(config) -> None:
    """InputError for a `config.train.fit` that is not known, or that its model can't have."""
    fit, model = config.train.fit, config.model
    if fit not in FITS:
        raise InputError(f"train.fit={fit!r} is not one of: {', '.join(FITS)}")
    needs = {"svm": ("mltf", "svm"), "ensemble": ("nnf", "ensemble")}
    if fit in needs and (model.name, model.variant) != needs[fit]:
        name, variant = needs[fit]
        raise InputError(f"train.fit={fit!r} is for model.name={name}, model.variant={variant}")
    if fit == "steps" and (model.name, model.variant) in needs.values():
        fit = next(fit for fit, model_ in needs.items() if model_[0] == model.name)
        raise InputError(f"model.variant={model.variant!r} is no model of steps: train.fit={fit}")


def fit(name: str, variables: dict, predict, dataset: SceneDataset, members: list[Bundle]) -> dict:
    """Variables with what `name` of FITS finds, by the training split and, if any, validation.

    Args:
      name: "svm" fits the layer `svm` to embeddings; "ensemble" the members' weights.
      variables: {"params", "batch_stats"} of numpy arrays.
      predict: the model's, by `steps.make_predict`.
      members: the stages' bundles, which are the ensemble's members.
    """
    validation = "validation" in dataset.sizes

    def predictions(run, variables: dict, split: str) -> evaluate.Predictions:
        return evaluate.predict(
            run, steps.replicate(variables), dataset.split(split), evaluate.batch_size()
        )

    params, batch_stats = dict(variables["params"]), dict(variables["batch_stats"])
    if name == "svm":
        train, held = predictions(predict, variables, "train"), None
        if validation:
            held = predictions(predict, variables, "validation")
            held = held.embedding, held.scene
        found = fits.fit_svm(
            train.embedding, train.scene, num_scenes=len(dataset.scenes), validation=held
        )
        params["svm"] = {"kernel": found.kernel, "bias": found.bias}
    elif validation:
        found = [
            predictions(steps.make_predict(each.build()), dict(each.variables), "validation")
            for each in members
        ]
        probabilities = np.stack([softmax(each.scene_logits, axis=1) for each in found])
        weights = fits.select_ensemble(probabilities, found[0].scene)
        batch_stats["weights"] = weights.astype(np.float32)
    return {"params": params, "batch_stats": batch_stats}
