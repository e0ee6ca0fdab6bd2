"""Finished runs side by side: their settings, scores with uncertainty, and learning curves.

Shapes: R runs, N clips that all were tested on, G recordings that these are windows of.
"""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from ergl_jax.errors import InputError
from ergl_jax.files import atomic_write, read_json, read_text, reading
from ergl_jax.training import workdirs

RESAMPLES = 2000  # of the bootstrap
INTERVAL = (2.5, 97.5)  # per cent


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run: its settings, predictions of the test split, and metrics of each epoch."""

    path: Path
    settings: dict[str, Any]  # "train.epochs": 300
    predictions: dict[str, tuple[str, str]]  # clip -> scene, predicted
    epochs: list[dict[str, float]]


def read(workdir: Path) -> Run:
    """A finished run; InputError for a directory without one."""
    workdir = workdirs.of(workdir)
    remedy = "name the directory of a finished run with a test split"
    path = workdir / "config.json"
    with reading(path, remedy, "a run's settings"):
        saved = read_json(path, remedy)
        if "train" not in saved:
            raise ValueError("no field 'train'")
        settings = workdirs.flatten(saved)
    path = workdir / "predictions.csv"
    with reading(path, remedy, "predictions"):
        rows = csv.DictReader(io.StringIO(read_text(path, remedy), newline=""))
        predictions = {row["clip"]: (row["scene"], row["predicted"]) for row in rows}
    path = workdir / "metrics.jsonl"
    with reading(path, remedy, "metrics"):
        epochs = [json.loads(line) for line in read_text(path, remedy).splitlines()]
    return Run(workdir, settings, predictions, epochs)


def different_settings(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The fields in which the runs differ, with the value of each run."""
    names = sorted(set().union(*(run.settings for run in runs)))
    values = {name: [run.settings.get(name) for run in runs] for name in names}
    return {name: each for name, each in values.items() if any(x != each[0] for x in each)}


def compare(runs: Sequence[Run]) -> dict[str, Any]:
    """Class mean accuracies with bootstrap intervals, and each run against the first.

    Recordings, with all their windows, are resampled within their class, the same for all runs. `p`
    is the p-value of an exact sign test over recordings: the better run gets more of a recording's
    windows right, and ties are dropped. With one window per recording, this is McNemar's exact
    test.

    Raises InputError unless the runs were tested on the same clips.
    """
    clips = sorted(runs[0].predictions)
    for run in runs:
        if {c: x[0] for c, x in run.predictions.items()} != {
            c: x[0] for c, x in runs[0].predictions.items()
        }:
            raise InputError(
                f"{run.path} and {runs[0].path} were tested on different clips: score both on the "
                "same recordings with `ergl evaluate`"
            )
    truth = np.array([runs[0].predictions[clip][0] for clip in clips])  # (N,)
    predicted = np.array([[run.predictions[clip][1] for clip in clips] for run in runs])
    # The builder names windows NAME#0, NAME#1, ...
    names, first_clip, recording = np.unique(
        [re.sub(r"#\d+$", "", clip) for clip in clips], return_index=True, return_inverse=True
    )
    total = np.bincount(recording)  # windows of each recording: (G,)
    right = np.stack([np.bincount(recording, x) for x in predicted == truth])  # (R, G)
    truth = truth[first_clip]  # (G,)
    rng = np.random.default_rng(0)
    classes = [np.flatnonzero(truth == scene) for scene in np.unique(truth)]
    drawn = [rng.choice(rows, (RESAMPLES, len(rows))) for rows in classes]
    means = np.mean([right[:, x].sum(axis=-1) / total[x].sum(axis=-1) for x in drawn], axis=0)
    accuracy = np.mean([right[:, x].sum(axis=-1) / total[x].sum() for x in classes], axis=0)  # (R,)
    found = []
    for i, run in enumerate(runs):
        only, first = int((right[i] > right[0]).sum()), int((right[0] > right[i]).sum())
        entry = {
            "run": str(run.path),
            "class_mean_accuracy": accuracy[i],
            "interval": np.percentile(means[i], INTERVAL).tolist(),
            "epochs": len(run.epochs),
        }
        if i:
            entry |= {
                "difference": accuracy[i] - accuracy[0],
                "difference_interval": np.percentile(means[i] - means[0], INTERVAL).tolist(),
                "this_better": only,
                "first_better": first,
                "p": binomtest(only, only + first).pvalue if only + first else 1.0,
            }
        found.append(entry)
    counts = {"clips": len(clips), "recordings": len(names)}
    return counts | {"runs": found, "settings": different_settings(runs)}


def text(found: dict[str, Any]) -> str:
    """What `compare` found, for a terminal."""
    clips, recordings = found["clips"], found["recordings"]
    of = f" of {recordings} recordings" if recordings < clips else ""
    lines = [f"{clips} test clips{of}; 95 % intervals by resampling recordings within each class"]
    for run in found["runs"]:
        low, high = (100 * x for x in run["interval"])
        lines.append(
            f"{run['run']}: {100 * run['class_mean_accuracy']:.1f} % ({low:.1f} to {high:.1f})"
        )
        if "p" in run:
            low, high = (100 * x for x in run["difference_interval"])
            lines.append(
                f"  against the first: {100 * run['difference']:+.1f} ({low:+.1f} to {high:+.1f}); "
                f"this run is better on {run['this_better']} recordings, the first on "
                f"{run['first_better']}, p = {run['p']:.3f}"
            )
    lines.append("settings:" if found["settings"] else "no settings differ")
    lines += [f"  {name}: {' | '.join(map(str, x))}" for name, x in found["settings"].items()]
    return "\n".join(lines)


def write_curves(runs: Sequence[Run], path: Path) -> None:
    """A PNG of the loss and the accuracy of each run by epoch, on training and validation clips."""
    # Imported here: Matplotlib creates directories in the user's home.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from ergl_jax.inference.pictures import label

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, fields in zip(
        figure.subplots(1, 2),
        (
            {"scene_loss": "training", "validation_scene_loss": "validation"},
            {"accuracy": "training", "validation_accuracy": "validation"},
        ),
        strict=True,
    ):
        for number, run in enumerate(runs):
            for (field, part), style in zip(fields.items(), (":", "-"), strict=True):
                points = [(each["epoch"], each[field]) for each in run.epochs if field in each]
                if points:
                    name = label(f"{part}, {run.path.name}")
                    axes.plot(*zip(*points, strict=True), style, color=f"C{number}", label=name)
        axes.set_xlabel("epoch")
        axes.set_title(next(iter(fields)).replace("_", " "))
        axes.legend(fontsize="small")
    with atomic_write(path) as tmp_path:
        figure.savefig(tmp_path, dpi=120, format="png")
