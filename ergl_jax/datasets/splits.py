"""A validation split for a corpus that comes without one, and the flags that settle splits."""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np

from ergl_jax.datasets.manifest import Corpus
from ergl_jax.errors import InputError


def add_flags(parser: argparse.ArgumentParser, *, folds: str = "folds") -> None:
    """Adds what `read_manifest` and `hold_out_groups` ask for, with the defaults of training.

    One set of flags, so that two commands that are given the same ones mean the same clips.
    """
    add = parser.add_argument
    add("--test_folds", type=_folds, default=[], help=f"{folds} of the test split, as 4 or 4,5")
    add("--validation_folds", type=_folds, default=[], help=f"{folds} of the validation split")
    add("--validation_fraction", type=float, default=0.3, help="held out where none is given")
    add("--validation_seed", type=int, default=0, help="settles which groups are held out")


def _folds(text: str) -> list[str]:
    return [fold.strip() for fold in text.split(",") if fold.strip()]


def hold_out_groups(corpus: Corpus, fraction: float = 0.3, seed: int = 0) -> Corpus:
    """Moves whole groups of training clips to validation, about `fraction` of each class.

    Greedy: each step moves the group that brings the classes' counts nearest to `fraction`,
    until none does; `seed` settles ties. Every class keeps a training clip, so a class that is
    all in one group stays in training. A corpus that has a validation split already, or no
    training clips, comes back as it is; so does any at fraction 0.

    Raises:
      InputError: fraction outside 0 <= fraction < 1.
    """
    if not 0 <= fraction < 1:
        raise InputError(f"validation fraction is {fraction}: choose 0 or more and less than 1")
    train = [clip for clip in corpus.clips if clip.split == "train"]
    if fraction == 0 or not train or any(clip.split == "validation" for clip in corpus.clips):
        return corpus

    groups = sorted({clip.group for clip in train})
    index = {group: g for g, group in enumerate(groups)}
    counts = np.zeros((len(groups), len(corpus.scenes)))  # clips of each group and class
    for clip in train:
        counts[index[clip.group], clip.scene] += 1
    moved = _choose(counts, fraction, np.random.default_rng(seed))
    held_out = {groups[g] for g in moved}
    clips = [
        dataclasses.replace(clip, split="validation")
        if clip.split == "train" and clip.group in held_out
        else clip
        for clip in corpus.clips
    ]
    return dataclasses.replace(corpus, clips=clips)


def _choose(counts: np.ndarray, fraction: float, rng: np.random.Generator) -> list[int]:
    """Rows of counts (G, C) whose sum is near fraction of the column sums, class by class."""
    total = counts.sum(axis=0)  # (C,)
    weight = 1 / np.maximum(total, 1)
    order = rng.permutation(len(counts))  # argmax takes the first of equals
    counts = counts[order]
    chosen: list[int] = []
    taken = np.zeros_like(total)
    free = np.ones(len(counts), bool)
    while True:
        # How much the weighted squared distance to the target falls if a group moves. Moves only
        # ever lower the later gains, so the first step without a gain is the end.
        missing = fraction * total - taken
        gain = (counts * (2 * missing - counts)) @ weight  # (G,)
        keeps_every_class = ((taken + counts < total) | (counts == 0)).all(axis=1)
        gain[~(free & keeps_every_class)] = -np.inf
        best = int(np.argmax(gain))
        # The first move is made even at a loss: too large a validation split beats none.
        if gain[best] == -np.inf or (gain[best] <= 1e-9 and chosen):
            return [int(order[g]) for g in chosen]
        chosen.append(best)
        taken += counts[best]
        free[best] = False
