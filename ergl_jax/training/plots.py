"""Pictures of a run's results."""

from pathlib import Path

import numpy as np

from ergl_jax.inference.narrative import plain
from ergl_jax.inference.pictures import label
from ergl_jax.training.metrics import class_accuracy


def confusion(path: Path, counts: np.ndarray, scenes: tuple[str, ...]) -> None:
    """A confusion matrix (scenes, scenes) as a PNG: shades are row shares, numbers are clips."""
    # Late: its import makes directories in the user's home.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

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
    axes.set_title(f"class-wise mean accuracy {100 * np.nanmean(class_accuracy(counts)):.1f} %")
    for row, column in np.argwhere(counts > 0):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, counts[row, column], ha="center", va="center", color=colour)
    figure.savefig(path, dpi=120, format="png")
