"""How well scores separate recordings of unknown classes from those of known ones.

    ERGL_SHARED_DATA=DIR python benchmarks/unknown.py --out runs/unknown

DIR has `esc10/`, folds 1 to 4 with meta.csv, and `urban_clips/`. Trains a model on each of SETS of
ESC-10's classes (folds 1 and 2; 3 validates, 4 tests) and scores known test clips, all clips of
the other classes, and city scenes. Prints, for each score: AUROC of known against unknown clips,
and the shares of known and unknown ones that are answered at the limits that keep 95 % and 80 % of
validation clips. Half an hour on two cores; finished runs are used again.
"""

import argparse
import csv
import os
import sys
from pathlib import Path

import numpy as np
from scipy.special import logsumexp, softmax
from sklearn.metrics import roc_auc_score

import ergl_jax
from ergl_jax import known
from ergl_jax.audio import read_audio
from ergl_jax.cli import main as ergl
from ergl_jax.datasets.tables import write_table

SPLITS = {"1": "train", "2": "train", "3": "validation", "4": "test"}  # by fold
KEEP = 0.95, 0.8  # of validation clips
SETS = {
    "A": ("baby_cry", "clock_tick", "fire_crackling", "person_sneeze", "rooster"),
    "B": ("chainsaw", "dog_bark", "helicopter", "rain", "sea_waves"),
    "C": (
        *("baby_cry", "clock_tick", "dog_bark", "helicopter"),
        *("person_sneeze", "rooster", "sea_waves"),
    ),
}


def recordings(root: Path, classes: tuple[str, ...]) -> list[list[str]]:
    """[path, class, split, source] of each recording; "unknown" and "city" are splits too."""
    found = []
    with open(root / "esc10" / "meta.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            split = SPLITS[row["fold"]] if row["label"] in classes else "unknown"
            path = str(root / "esc10" / row["filename"])
            found.append([path, row["label"], split, row["source"]])
    cities = sorted((root / "urban_clips").glob("*.wav"))
    return found + [[str(path), "", "city", ""] for path in cities]


def scores(model: ergl_jax.Model, paths: dict[str, list[str]]) -> dict[str, dict[str, np.ndarray]]:
    """Scores of each split's recordings, higher for known ones; uses the first clip of each."""
    bundle, rate = model.bundle, model.bundle.front_end.sample_rate
    length = bundle.front_end.num_samples(bundle.clip_seconds)
    waveforms = {
        split: np.stack([np.resize(read_audio(path, rate), length) for path in each])
        for split, each in paths.items()
    }
    logits = {split: model.outputs(x)[0] for split, x in waveforms.items()}
    embedded = {split: model.embed(list(x), sample_rate=rate) for split, x in waveforms.items()}
    by_embedding = known.fit(embedded["train"], embedded["validation"])
    classified = {
        split: model.classify(list(x), sample_rate=rate) for split, x in waveforms.items()
    }
    return {
        "highest probability": {
            split: softmax(x, axis=1).max(axis=1) for split, x in logits.items()
        },
        "energy": {split: logsumexp(x, axis=1) for split, x in logits.items()},
        "distance of the embedding": {
            split: -by_embedding.distance(x) for split, x in embedded.items()
        },
        "distance of the encoder's features": {
            split: -np.array([result.distance for result in each])
            for split, each in classified.items()
        },
    }


def row(score: dict[str, np.ndarray]) -> list[float]:
    """AUROC against unknown and city; shares of test, unknown and city answered, for each KEEP."""
    areas = []
    for other in ("unknown", "city"):
        truth = np.repeat([1, 0], [len(score["test"]), len(score[other])])
        areas.append(roc_auc_score(truth, np.r_[score["test"], score[other]]))
    limits = np.quantile(score["validation"], [1 - keep for keep in KEEP])
    return areas + [
        (score[split] >= limit).mean() for limit in limits for split in ("test", "unknown", "city")
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory for the runs")
    out, root = parser.parse_args().out, Path(os.environ["ERGL_SHARED_DATA"])
    print("run, score: AUROC of unknown, city; test, unknown, city answered at 95 %, at 80 %")
    for name, classes in SETS.items():
        found = recordings(root, classes)
        manifest = out / f"{name}.csv"
        manifest.parent.mkdir(parents=True, exist_ok=True)
        rows = [one for one in found if one[2] in SPLITS.values()]
        write_table(manifest, ["file", "scene", "split", "group"], rows)
        train = ["train", "--manifest", str(manifest), "--out", str(out / name)]
        if ergl([*train, "--set", "train.epochs=50"]):
            return 1
        splits: dict[str, list[str]] = {}
        for path, _, split, _ in found:
            splits.setdefault(split, []).append(path)
        each = scores(ergl_jax.load(out / name), splits)
        sure = each["highest probability"]
        shares = ", ".join(f"{split} {(sure[split] > 0.9).mean():.2f}" for split in sure)
        print(f"{name}, probability over 0.9: {shares}")
        for score, values in each.items():
            print(f"{name}, {score}: " + " ".join(f"{x:.2f}" for x in row(values)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
