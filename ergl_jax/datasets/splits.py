"""Holds out a validation or test split from the training clips."""

from __future__ import annotations

import dataclasses

import numpy as np

from ergl_jax.datasets.manifest import Corpus


def hold_out_groups(
    corpus: Corpus, fraction: float = 0.3, seed: int = 0, *, split: str = "validation"
) -> Corpus:
    """Moves whole groups of training clips to another split, about `fraction` of each class.

    Greedy: each step moves the group that brings the classes' counts nearest to `fraction`, until
    none does; `seed` breaks ties. Every class keeps a training clip, so a class that is all in one
    group stays in training. A corpus that has the split, or no training clips, is returned
    unchanged; so is any corpus at fraction 0.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction={fraction}: choose 0 or more and less than 1")
    train = [clip for clip in corpus.clips if clip.split == "train"]
    if fraction == 0 or not train or any(clip.split == split for clip in corpus.clips):
        return corpus

    groups = sorted({clip.group for clip in train})
    index = {group: g for g, group in enumerate(groups)}
    counts = np.zeros((len(groups), len(corpus.scenes)))  # clips of each group and class
    for clip in train:
        counts[index[clip.group], clip.scene] += 1
    held_out = {groups[g] for g in _choose(counts, fraction, np.random.default_rng(seed))}
    clips = [
        dataclasses.replace(clip, split=split)
        if clip.split == "train" and clip.group in held_out
        else clip
        for clip in corpus.clips
    ]
    return dataclasses.replace(corpus, clips=clips)


def _choose(counts: np.ndarray, fraction: float, rng: np.random.Generator) -> list[int]:
    """Rows of counts (G, C) whose sum is near fraction of the column sums, class by class."""
    total = counts.sum(axis=0)  # (C,)
    weight = 1 / np.maximum(total, 1)
    # Groups with equal counts are interchangeable: the first one in a random order represents them.
    # So 100 000 groups of one clip each are as many kinds as there are classes.
    kinds, kind = np.unique(counts, axis=0, return_inverse=True)  # (K, C), (G,)
    waiting: list[list[int]] = [[] for _ in kinds]  # ranks of each kind's groups, the next one last
    order = rng.permutation(len(counts))
    for rank in range(len(order) - 1, -1, -1):
        waiting[kind.flat[order[rank]]].append(rank)
    used_up = np.zeros(len(kinds), bool)
    chosen: list[int] = []
    taken = np.zeros_like(total)
    while True:
        # By how much the weighted squared distance to the target falls if a group moves. Moves only
        # lower the later gains, so the search ends at the first step without a gain.
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
