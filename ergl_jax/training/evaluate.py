"""Predictions for a split, and what they are worth."""

import contextlib
import csv
import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from scipy.special import softmax

from ergl_jax.bundle import Bundle
from ergl_jax.datasets.batches import eval_indices, stream
from ergl_jax.datasets.builder import SceneDataset, SceneSplit
from ergl_jax.errors import InputError
from ergl_jax.files import atomic_write, make_directory
from ergl_jax.training import hosts, metrics, plots
from ergl_jax.training.calibration import expected_calibration_error
from ergl_jax.training.step import Tree, make_predict, replicate

BATCH = 64


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Outputs and labels of the N clips of a split, in its order."""

    scene_logits: np.ndarray  # (N, scenes)
    scene: np.ndarray  # (N,)
    event_probabilities: np.ndarray | None  # (N, n)
    events: np.ndarray  # (N, E), all events of the dataset
    embedding: np.ndarray | None = None  # (N, D), of a model that has one


def predict(run: Callable, variables: Tree, split: SceneSplit, batch_size: int) -> Predictions:
    """Runs a `make_predict` over a split; the last batch is padded, its padding cut away.

    Each of several processes reads and predicts its share, `batch_size` clips at a time, and gets
    what the others have.

    Raises InputError where an output is not finite: an epoch's last step can be what diverges.
    """
    processes, mine = jax.process_count(), jax.process_index()
    indices, mask = eval_indices(len(split), processes * batch_size)
    parts = []
    for batch in stream(split, np.split(indices, processes, axis=1)[mine]):
        batch |= run(variables, batch.pop("log_mel"))
        parts.append(batch)
    stacked = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    # (P, steps, B, ...) to (steps, P, B, ...): the order of `indices`.
    whole = {name: np.swapaxes(x, 0, 1) for name, x in hosts.gather(stacked).items()}
    whole = {
        name: x.reshape(mask.size, *x.shape[3:])[mask.ravel() > 0] for name, x in whole.items()
    }
    if not all(np.isfinite(x).all() for x in whole.values()):
        raise InputError(
            "the model's outputs are not finite: it diverged; train it with a lower "
            "--config.optimizer.learning_rate, or some --config.optimizer.warmup_epochs"
        )
    return Predictions(
        scene_logits=whole["scene_logits"],
        scene=whole["scene"],
        event_probabilities=whole.get("event_probabilities"),
        events=whole["events"],
        embedding=whole.get("embedding"),
    )


def scores(predictions: Predictions, events: np.ndarray, *, threshold: float) -> dict:
    """`metrics.scene_metrics`, and `event_metrics` against the label columns `events`, if any."""
    result = metrics.scene_metrics(predictions.scene_logits, predictions.scene)
    if predictions.event_probabilities is not None and len(events):
        result |= metrics.event_metrics(
            predictions.event_probabilities, predictions.events[:, events], threshold=threshold
        )
    return result


def evaluate(
    bundle: Bundle, dataset: SceneDataset, *, threshold: float, batch_size: int
) -> tuple[Predictions, dict]:
    """A bundle on the test split of a dataset.

    Scenes are matched by name. Events too, where the dataset has all of the bundle's; otherwise
    their scores are left out.

    Returns:
      The Predictions, with scenes as the bundle counts them, and a dict of their scores.

    Raises InputError as `check_fits` does.
    """
    check_fits(bundle, dataset)
    run = make_predict(bundle.build())
    predictions = predict(run, replicate(dict(bundle.variables)), dataset.split("test"), batch_size)
    position = np.array([bundle.scenes.index(name) for name in dataset.scenes])
    predictions = dataclasses.replace(predictions, scene=position[predictions.scene])
    known = set(bundle.events) <= set(dataset.events)
    events = [dataset.events.index(name) for name in bundle.events] if known else []
    found = scores(predictions, np.array(events, int), threshold=threshold)
    return predictions, found | calibration_errors(predictions, bundle.temperature)


def test_bundle(
    bundle: Bundle, dataset: SceneDataset, *, threshold: float, directory: Path
) -> dict:
    """Scores on the test split, its files written to `directory`, which is made if need be."""
    predictions, found = evaluate(bundle, dataset, threshold=threshold, batch_size=batch_size())
    if hosts.is_main_process():
        make_directory(directory, "directory")  # here: what can't be evaluated leaves none
        write(directory, predictions, dataset.split("test"), bundle)
    return found


def batch_size() -> int:
    """Clips at a time that are evaluated: BATCH, rounded up to a multiple of the devices."""
    devices = jax.local_device_count()
    return math.ceil(BATCH / devices) * devices


def check_fits(bundle: Bundle, dataset: SceneDataset) -> None:
    """InputError unless a bundle can be tested on a dataset.

    That is where the dataset has no test split, a scene that the bundle doesn't know, or another
    front end, clip length or padding.
    """
    if dataset.front_end != bundle.front_end:
        raise InputError(
            f"the dataset was made with front end {dataset.front_end.name!r}, the bundle wants "
            f"{bundle.front_end.name!r}: set --config.data.front_end={bundle.front_end.name}"
        )
    if dataset.clip_seconds != bundle.clip_seconds:
        raise InputError(
            f"the dataset has clips of {dataset.clip_seconds} s, the bundle wants "
            f"{bundle.clip_seconds} s: set --config.data.clip_seconds={bundle.clip_seconds}"
        )
    if dataset.pad != bundle.pad:
        raise InputError(
            f"the dataset was made with pad={dataset.pad!r}, the bundle wants {bundle.pad!r}: set "
            f"--config.data.pad={bundle.pad}"
        )
    if "test" not in dataset.sizes:
        raise InputError(f"dataset {dataset.name!r} has no test split: mark rows of it as test")
    if unknown := sorted(set(dataset.scenes) - set(bundle.scenes)):
        raise InputError(f"the bundle does not know scene {unknown[0]!r} of the dataset")


def calibration_errors(predictions: Predictions, temperature: float) -> dict[str, float]:
    """The expected calibration error, as it is and with a temperature."""
    logits, truth = predictions.scene_logits, predictions.scene
    return {
        "expected_calibration_error_before": expected_calibration_error(logits, truth, 1.0),
        "expected_calibration_error": expected_calibration_error(logits, truth, temperature),
    }


def write(directory: Path, predictions: Predictions, split: SceneSplit, bundle: Bundle) -> None:
    """Writes predictions.csv, confusion.csv and confusion.png of the split that `bundle` predicted.

    Probabilities are calibrated: as `ergl classify` gives them.
    """
    scenes = bundle.scenes
    counts = metrics.confusion(
        predictions.scene, predictions.scene_logits.argmax(axis=1), len(scenes)
    )
    with _csv(directory / "confusion.csv") as writer:
        writer.writerow(["true \\ predicted", *scenes])
        writer.writerows([name, *row] for name, row in zip(scenes, counts, strict=True))
    with atomic_write(directory / "confusion.png") as beside:
        plots.confusion(beside, counts, scenes)
    probabilities = softmax(predictions.scene_logits / bundle.temperature, axis=1)
    with _csv(directory / "predictions.csv") as writer:
        writer.writerow(["clip", "scene", "predicted", *scenes])
        names = (split[index]["name"] for index in range(len(split)))
        rows = zip(names, predictions.scene, probabilities, strict=True)
        writer.writerows(
            [name, scenes[truth], scenes[p.argmax()], *(f"{x:.6f}" for x in p)]
            for name, truth, p in rows
        )


@contextlib.contextmanager
def _csv(path: Path) -> Iterator:
    """A csv.writer of a file that is there whole or not at all."""
    with atomic_write(path) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        yield csv.writer(file)
