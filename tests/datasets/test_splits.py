"""The validation split: whole groups, every class, near the chosen fraction."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ergl_jax.datasets.manifest import Clip, Corpus
from ergl_jax.datasets.splits import hold_out_groups


def corpus_of(rows):
    """rows: (scene, group, split)"""
    clips = [
        Clip(f"c{i}", scene, split, group, np.zeros(0, np.float32), load=None)
        for i, (scene, group, split) in enumerate(rows)
    ]
    return Corpus("toy", tuple("abcdef"), (), clips, "", "00")


def counts(corpus, split):
    return collections.Counter(clip.scene for clip in corpus.clips if clip.split == split)


def held_out(corpus):
    return {clip.group for clip in corpus.clips if clip.split == "validation"}


def test_equal_groups_give_the_exact_fraction():
    rows = [(scene, f"{scene}-{g}", "train") for scene in range(6) for g in range(10)] * 4
    assert counts(hold_out_groups(corpus_of(rows), 0.3), "validation") == dict.fromkeys(
        range(6), 12
    )
    # Groups of several classes balance them all.
    rows = [(scene, f"place{p}", "train") for p in range(10) for scene in (0, 1) for _ in range(5)]
    assert counts(hold_out_groups(corpus_of(rows), 0.3), "validation") == {0: 15, 1: 15}


def test_takes_the_group_that_fits_and_at_least_one():
    sizes = {"big": 50, "right": 30, "small": 20}
    rows = [(0, group, "train") for group, size in sizes.items() for _ in range(size)]
    assert held_out(hold_out_groups(corpus_of(rows), 0.3)) == {"right"}
    assert len(held_out(hold_out_groups(corpus_of(rows), 0.01))) == 1


def test_seed_chooses_among_equals_and_repeats():
    corpus = corpus_of([(g % 2, f"g{g}", "train") for g in range(40)])
    choices = [held_out(hold_out_groups(corpus, 0.3, seed)) for seed in (0, 0, 1, 2)]
    assert choices[0] == choices[1] and choices[0] != choices[2] != choices[3]


def test_corpora_that_stay_as_they_are():
    for split, fraction in (("validation", 0.3), ("test", 0.3), ("train", 0)):
        corpus = corpus_of([(0, "a", split), (0, "b", "test")])
        assert hold_out_groups(corpus, fraction) is corpus
    with pytest.raises(ValueError, match="fraction=1"):
        hold_out_groups(corpus, 1)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8)), min_size=1, max_size=60),
    fraction=st.floats(0.05, 0.6),
    seed=st.integers(0, 5),
)
def test_always_whole_groups_every_class_kept_and_no_better_move_left(rows, fraction, seed):
    test_rows = [(scene, f"t{group}", "test") for scene, group in rows]
    before = corpus_of([(scene, f"g{group}", "train") for scene, group in rows] + test_rows)
    after = hold_out_groups(before, fraction, seed)
    chosen = held_out(after)
    for old, new in zip(before.clips, after.clips, strict=True):
        assert (new.name, new.scene, new.group) == (old.name, old.scene, old.group)
        moved = old.split == "train" and old.group in chosen
        assert new.split == ("validation" if moved else old.split)
    total = counts(before, "train")
    assert set(counts(after, "train")) == set(total)

    def distance(groups):
        inside = collections.Counter(s for s, g in rows if f"g{g}" in groups)
        return sum((inside[c] - fraction * n) ** 2 / n for c, n in total.items())

    for group in {f"g{g}" for _, g in rows} - chosen:
        left = {scene for scene, g in rows if f"g{g}" not in chosen | {group}}
        if left == set(total):  # it could move
            assert chosen and distance(chosen | {group}) >= distance(chosen) - 1e-6
