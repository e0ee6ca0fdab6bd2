"""Predictions of a model on a split, their scores, and the files that show them."""

import contextlib
import csv
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.special import softmax

from ergl_jax.bundle import Bundle, load
from ergl_jax.config import DataConfig
from ergl_jax.datasets import sources
from ergl_jax.datasets.batches import eval_indices, stream
from ergl_jax.datasets.builder import SceneDataset
from ergl_jax.datasets.manifest import Corpus
from ergl_jax.datasets.scene_split import SceneSplit
from ergl_jax.errors import InputError
from ergl_jax.files import atomic_write, make_directory
from ergl_jax.inference.narrative import plain
from ergl_jax.training import hosts, metrics, workdirs
from ergl_jax.training.device_data import open_dataset
from ergl_jax.training.step import Tree, make_predict, replicate

BATCH = 64  # clips per step, at least


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Outputs and labels of the N clips of a split, in its order."""

    scene_logits: np.ndarray  # (N, scenes)
    scene: np.ndarray  # (N,)
    events: np.ndarray  # (N, E), all events of the dataset
    event_probabilities: np.ndarray | None = None  # (N, n), of models that have them
    embedding: np.ndarray | None = None  # (N, D), of models that have one


def predict(run: Callable, variables: Tree, split: SceneSplit) -> Predictions:
    """Predicts a split with a `make_predict` function; the last batch is padded.

    Each of several processes predicts its share of the clips and receives the outputs of the
    others. Raises InputError if an output is not finite: the last step of an epoch may be the one
    that diverges.
    """
    processes, devices = jax.process_count(), jax.local_device_count()
    batch_size = math.ceil(BATCH / devices) * devices  # a multiple of the devices
    indices, mask = eval_indices(len(split), processes * batch_size)
    parts = []
    share = np.split(indices, processes, axis=1)[jax.process_index()]
    for batch in stream(split, share):
        batch.pop("activity", None)  # for training alone
        batch |= run(variables, batch.pop("log_mel"))
        parts.append(batch)
    stacked = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    # (P, steps, B, ...) to (steps, P, B, ...), the order of `indices`, and to (N, ...).
    whole = {name: np.swapaxes(x, 0, 1) for name, x in hosts.gather(stacked).items()}
    whole = {
        name: x.reshape(mask.size, *x.shape[3:])[mask.ravel() > 0] for name, x in whole.items()
    }
    if not all(np.isfinite(x).all() for x in whole.values()):
        raise InputError(
            "the model's outputs are not finite: training diverged; try a lower "
            "optimizer.learning_rate, or some optimizer.warmup_epochs"
        )
    return Predictions(**whole)


def scores(predictions: Predictions, events: np.ndarray, *, threshold: float) -> dict[str, Any]:
    """Scene metrics, and event metrics against the columns `events` of the labels, if any."""
    result: dict[str, Any] = dict(
        metrics.scene_metrics(predictions.scene_logits, predictions.scene)
    )
    if predictions.event_probabilities is not None and len(events):
        result |= metrics.event_metrics(
            predictions.event_probabilities, predictions.events[:, events], threshold=threshold
        )
    return result


def scores_by(
    predictions: Predictions, scenes: Sequence[str], by: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """The accuracy of each scene as `by_scene`, and for each column of `by` that of its values.

    Args:
      predictions: of N clips.
      scenes: names.
      by: columns of N values, such as {"device": [...]}.
    """
    right = predictions.scene_logits.argmax(axis=1) == predictions.scene
    columns = {"scene": [scenes[index] for index in predictions.scene], **by}
    return {f"by_{name}": metrics.accuracy_by(right, values) for name, values in columns.items()}


def describe(scores: Mapping[str, Any]) -> list[str]:
    """A line for each score, and for each value of those of `scores_by`."""
    lines = []
    for name, value in scores.items():
        if isinstance(value, dict):
            lines.append(f"{name:33} {'accuracy':>8} {'clips':>8}")
            lines += [
                f"  {key or '(empty)':31} {each['accuracy']:8.4f} {each['clips']:8}"
                for key, each in value.items()
            ]
        else:
            text = "-" if value is None else f"{value:.4f}" if isinstance(value, float) else value
            lines.append(f"{name:33} {text}")
    return lines


def evaluate(
    bundle: Bundle, dataset: SceneDataset, *, threshold: float
) -> tuple[Predictions, dict[str, Any]]:
    """Predictions of a bundle on a dataset's test split, and their scores.

    Scenes are matched by name and counted as in the bundle. Events are matched by name too; their
    scores are left out if the dataset lacks some of the bundle's.

    Raises InputError as `check_fits` does.
    """
    check_fits(bundle, dataset)
    run, variables = make_predict(bundle.build()), replicate(dict(bundle.variables))
    predictions = predict(run, variables, dataset.split("test"))
    position = np.array([bundle.scenes.index(name) for name in dataset.scenes])
    predictions = dataclasses.replace(predictions, scene=position[predictions.scene])
    has_events = set(bundle.events) <= set(dataset.events)
    events = [dataset.events.index(name) for name in bundle.events] if has_events else []
    found = scores(predictions, np.array(events, int), threshold=threshold)
    return predictions, found | metrics.calibration_errors(
        predictions.scene_logits, predictions.scene, bundle.temperature
    )


def check_fits(bundle: Bundle, dataset: SceneDataset) -> None:
    """Raises InputError unless a bundle can be tested on a dataset.

    The dataset needs a test split, no scene that the bundle lacks, and the bundle's front end, clip
    length and padding.
    """
    for field in ("front_end", "clip_seconds", "pad"):
        found, wanted = getattr(dataset, field), getattr(bundle, field)
        if found != wanted:
            found, wanted = (getattr(value, "setting", value) for value in (found, wanted))
            raise InputError(
                f"the dataset has {field}={found}, the bundle needs {field}={wanted}: set "
                f"data.{field}={wanted}"
            )
    if "test" not in dataset.sizes:
        raise InputError(f"dataset {dataset.name!r} has no test split: mark rows of it as test")
    if unknown := sorted(set(dataset.scenes) - set(bundle.scenes)):
        raise InputError(
            f"the dataset has the scene {unknown[0]!r}, which the bundle lacks: spell it "
            "as in the bundle's config.json, remove its rows, or train with it"
        )


def test_bundle(
    bundle: Bundle,
    dataset: SceneDataset,
    corpus: Corpus,
    *,
    threshold: float,
    directory: Path,
) -> dict[str, Any]:
    """Scores on the test split; writes its files to `directory`, which is made if need be.

    `corpus` is that of the dataset; its clips have the columns for `scores_by`.
    """
    predictions, found = evaluate(bundle, dataset, threshold=threshold)
    split = dataset.split("test")
    names = [split[index]["name"] for index in range(len(split))]
    if hosts.is_main_process():
        make_directory(directory, "directory")  # only now, so that an error leaves none behind
        write(directory, predictions, names, bundle)
    by = {clip.name: clip.by for clip in corpus.clips}
    each = [by[name] if name in by else by[name.rpartition("#")[0]] for name in names]
    columns = {column: [values[column] for values in each] for column in corpus.clips[0].by}
    return found | scores_by(predictions, bundle.scenes, columns)


def evaluate_bundle(workdir: Path, config: DataConfig) -> dict:
    """Evaluates `workdir/bundle` on the test split of the data.

    Writes results.json, predictions and confusion matrix to `workdir/evaluation`; returns scores.
    """
    bundle, corpus = load(workdir / "bundle"), sources.corpus(config)
    dataset = open_dataset(config, corpus)
    directory = workdir / "evaluation"
    data = config.manifest or dataset.name
    try:
        check_fits(bundle, dataset)
    except InputError as error:
        raise InputError(f"{workdir / 'bundle'} on {data}: {error}") from error
    if hosts.is_main_process():
        sources.warn_of_one_scene(data, {"test": dataset.class_sizes["test"]})
    threshold = config.event_threshold
    results = test_bundle(bundle, dataset, corpus, threshold=threshold, directory=directory)
    if hosts.is_main_process():
        workdirs.write_json(directory / "results.json", results)
    return results


def write(directory: Path, predictions: Predictions, names: Iterable[str], bundle: Bundle) -> None:
    """Writes predictions.csv, confusion.csv and confusion.png of clips with these names.

    Probabilities are those of `ergl classify`, logits divided by the temperature.
    """
    scenes = bundle.scenes
    counts = metrics.confusion(
        predictions.scene, predictions.scene_logits.argmax(axis=1), len(scenes)
    )
    with _csv_writer(directory / "confusion.csv") as writer:
        writer.writerow(["true \\ predicted", *scenes])
        writer.writerows([name, *row] for name, row in zip(scenes, counts, strict=True))
    with atomic_write(directory / "confusion.png") as tmp_path:
        _plot_confusion(tmp_path, counts, scenes)
    probabilities = softmax(predictions.scene_logits / bundle.temperature, axis=1)
    with _csv_writer(directory / "predictions.csv") as writer:
        writer.writerow(["clip", "scene", "predicted", *scenes])
        rows = zip(names, predictions.scene, probabilities, strict=True)
        writer.writerows(
            [name, scenes[truth], scenes[p.argmax()], *(f"{x:.6f}" for x in p)]
            for name, truth, p in rows
        )


@contextlib.contextmanager
def _csv_writer(path: Path) -> Iterator:
    """A csv.writer of a file that is written atomically; names that are not UTF-8 are escaped."""
    with (
        atomic_write(path) as tmp_path,
        open(tmp_path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        yield csv.writer(file)


def _plot_confusion(path: Path, counts: np.ndarray, scenes: tuple[str, ...]) -> None:
    """Draws counts (scenes, scenes) as a PNG: shades are shares of the row, numbers are clips."""
    # Imported here: Matplotlib creates directories in the user's home.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from ergl_jax.inference.pictures import label

    size = len(scenes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(3 + 0.55 * size, 2.2 + 0.55 * size), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    labels = [label(plain(name)) for name in scenes]
    axes.set_xticks(range(size), labels, rotation=45, ha="right")
    axes.set_yticks(range(size), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    accuracy = np.nanmean(metrics.class_accuracy(counts))
    axes.set_title(f"class-wise mean accuracy {100 * accuracy:.1f} %")
    for row, column in np.argwhere(counts > 0):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, counts[row, column], ha="center", va="center", color=colour)
    figure.savefig(path, dpi=120, format="png")
