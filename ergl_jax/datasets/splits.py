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
      InputError: fraction outside 0 <= fraction < 1, or a negative seed.
    """
    if seed < 0:
        raise InputError(f"validation_seed={seed}: use 0 or more")
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
    # Groups of the same counts are as good as each other: the first of them in a random order
    # stands for all. Of 100 000 groups of a clip each, as many kinds are left as there are classes.
    kinds, kind = np.unique(counts, axis=0, return_inverse=True)  # (K, C), (G,)
    waiting = [[] for _ in kinds]  # the groups of each kind, the next one last
    order = rng.permutation(len(counts))
    for rank in range(len(order) - 1, -1, -1):
        waiting[kind.flat[order[rank]]].append(rank)
    used_up = np.zeros(len(kinds), bool)
    chosen: list[int] = []
    taken = np.zeros_like(total)
    while True:
        # How much the weighted squared distance to the target falls if a group moves. Moves only
        # ever lower the later gains, so the first step without a gain is the end.
        missing = fraction * total - taken
        gain = (kinds * (2 * missing - kinds)) @ weight  # (K,)
        keeps_every_class = ((taken + kinds < total) | (kinds == 0)).all(axis=1)
        gain[~keeps_every_class | used_up] = -np.inf
        most = gain.max()
        # The first move is made even at a loss: too large a validation split beats none.
        if most == -np.inf or (most <= 1e-9 and chosen):
            return [int(order[rank]) for rank in chosen]
        best = min(np.flatnonzero(gain == most), key=lambda k: waiting[k][-1])
        chosen.append(waiting[best].pop())
        used_up[best] = not waiting[best]
        taken += kinds[best]
