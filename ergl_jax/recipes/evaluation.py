"""Scores of a bundle on labelled recordings, which it classifies as `ergl classify` does."""

import dataclasses
import filecmp
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ergl_jax.config import DataConfig
from ergl_jax.datasets import sources, synthetic
from ergl_jax.datasets.manifest import Corpus
from ergl_jax.datasets.notes import Notes
from ergl_jax.datasets.sources import warn_of_one_scene
from ergl_jax.errors import InputError
from ergl_jax.files import find_path, make_directory, read_json, user_path
from ergl_jax.inference.classify import Model
from ergl_jax.training import metrics, workdirs
from ergl_jax.training.evaluate import Predictions, scores, scores_by, write


def choose(corpus: Corpus, split: str) -> Corpus:
    """The clips of a split, "all" of them, or for "" those of the test split if there is one."""
    splits = {clip.split for clip in corpus.clips}
    split = split or ("test" if "test" in splits else "all")
    clips = [clip for clip in corpus.clips if split in ("all", clip.split)]
    if not clips:
        raise InputError(
            f"{corpus.name}: no {split} clip: choose --split={' or '.join(sorted(splits))} or all"
        )
    return dataclasses.replace(corpus, clips=clips)


def count_trained_on(workdir: Path, corpus: Corpus) -> int | None:
    """How many recordings of a corpus are in a run's training split: the same files, or copies.

    A copy has the same name and content. Recordings that are missing or can't be read don't count.
    None if unknown: there is no run, its manifest can't be read, or its data is TUT 2018.
    """
    known: dict[str, list[Path]] = defaultdict(list)
    try:
        data = DataConfig.from_saved(read_json(workdir / "config.json")["data"])
        if data.source != "folder":
            return 0 if data.source in synthetic.CORPORA else None
        for clip in sources.corpus(data).clips:
            if clip.split == "train":
                path = find_path(user_path(data.manifest).parent / clip.name)
                known[path.name].append(path)
    except (InputError, OSError, ValueError, KeyError, TypeError):
        return None
    return sum(
        any(_are_equal(clip.name, path) for path in known[os.path.basename(clip.name)])
        for clip in corpus.clips
    )


def _are_equal(path: str, other: Path) -> bool:
    """Whether two files can be read and have the same content."""
    try:
        return filecmp.cmp(path, other, shallow=False)
    except OSError:
        return False


def evaluate(
    model: Model,
    corpus: Corpus,
    *,
    threshold: float = 0.5,
    failed: Callable[[InputError], None],
    directory: Path | None = None,
) -> dict[str, Any]:
    """Scores of a model on the recordings of a corpus, whose names are their paths.

    Scenes and events are matched by name; events are scored if the corpus has all of the model's.
    The other scores count an abstention as its guess.

    Args:
      model: of any bundle with scenes.
      corpus: at least one clip.
      threshold: an event's label of at least this counts as present.
      failed: called with the error of each recording that can't be read, and is left out.
      directory: for results.json, predictions.csv, confusion.csv and confusion.png, and
        notes.csv if there are notes on recordings.

    Raises:
      InputError: a scene that the bundle lacks, or no recording that can be read.
    """
    bundle = model.bundle
    if unknown := sorted({corpus.scenes[clip.scene] for clip in corpus.clips} - {*bundle.scenes}):
        raise InputError(
            f"{corpus.name}: the bundle has no scene {unknown[0]!r}: remove its recordings, or "
            f"rename it to one of {', '.join(bundle.scenes)}"
        )
    warn_of_one_scene(corpus.name, {"its": Counter(clip.scene for clip in corpus.clips).values()})
    has_events = bool(bundle.events) and {*bundle.events} <= {*corpus.events}
    columns = [corpus.events.index(name) for name in bundle.events] if has_events else []
    names, scene, events, found, notes = [], [], [], [], Notes()
    by: dict[str, list[str]] = {name: [] for name in corpus.clips[0].by}
    results = model.classify_each(clip.name for clip in corpus.clips)
    for clip, (_, result) in zip(corpus.clips, results, strict=True):
        if isinstance(result, InputError):
            failed(result)
            continue
        notes.add(clip.name, result.notes)
        names.append(clip.name)
        scene.append(bundle.scenes.index(corpus.scenes[clip.scene]))
        events.append(clip.events)
        found.append(result)
        for name, value in clip.by.items():
            by[name].append(value)
    if not found:
        raise InputError(f"{corpus.name}: none of the recordings can be read")

    def values(kind: str, order: tuple[str, ...]) -> np.ndarray:
        each = [[getattr(result, kind)[name] for name in order] for result in found]
        return np.array(each, np.float64).reshape(len(found), len(order))

    # A mean of probabilities has no logits; the softmax of its logarithm gives it back.
    shown = dataclasses.replace(bundle, temperature=1.0)
    predictions = Predictions(
        scene_logits=np.log(np.maximum(values("scenes", bundle.scenes), 1e-12)),
        scene=np.array(scene),
        events=np.array(events),
        event_probabilities=values("events", bundle.events) if has_events else None,
    )
    scored = scores(predictions, np.array(columns, int), threshold=threshold)
    scored["expected_calibration_error"] = metrics.expected_calibration_error(
        predictions.scene_logits, predictions.scene, shown.temperature
    )
    if model.max_distance is not None:
        known = np.array([result.known for result in found])
        right = predictions.scene_logits.argmax(axis=1) == predictions.scene
        scored |= {
            "abstained": float((~known).mean()),
            "answered_accuracy": float(right[known].mean()) if known.any() else None,
        }
    scored |= {"recordings": len(found), "failures": len(corpus.clips) - len(found)}
    scored |= scores_by(predictions, bundle.scenes, by)
    if directory:
        make_directory(directory, "--out")
        write(directory, predictions, names, shown)
        notes.write(directory / "notes.csv")
        workdirs.write_json(directory / "results.json", scored)
    return scored
