"""Batches: who is in which, and the same ones from memory and from disk."""

import time

import numpy as np
import pytest

from ergl_jax import audio
from ergl_jax.datasets import batches, builder
from ergl_jax.datasets.manifest import Clip, Corpus
from ergl_jax.errors import InputError


def test_train_indices_are_a_permutation_of_full_batches():
    indices = batches.train_indices(23, 5, seed=1, epoch=0)
    assert indices.shape == (4, 5) and indices.dtype == np.int32
    assert len(set(indices.ravel())) == 20 and set(indices.ravel()) <= set(range(23))


def test_train_indices_follow_from_seed_and_epoch_alone():
    same = [batches.train_indices(50, 8, seed=3, epoch=7) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    others = [(3, 8), (4, 7), (7, 3)]
    for seed, epoch in others:
        assert (batches.train_indices(50, 8, seed=seed, epoch=epoch) != same[0]).any()


def test_every_row_is_used_over_the_epochs():
    used = {i for e in range(20) for i in batches.train_indices(9, 8, seed=0, epoch=e).ravel()}
    assert used == set(range(9))


@pytest.mark.parametrize("size", [0, 8])
def test_a_batch_larger_than_the_data_or_empty_is_refused(size):
    with pytest.raises(InputError, match=f"batch of {size} from 7 .*train.batch_size"):
        batches.train_indices(7, size, seed=0, epoch=0)


@pytest.mark.parametrize("count", [1, 4, 5, 8, 9])
def test_eval_indices_visit_each_row_once_under_the_mask(count):
    indices, mask = batches.eval_indices(count, 4)
    assert indices.shape == mask.shape == (-(-count // 4), 4)
    assert indices.dtype == np.int32 and mask.dtype == np.float32
    np.testing.assert_array_equal(indices[mask == 1], np.arange(count))
    assert (indices[mask == 0] == 0).all() and mask.sum() == count


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    def clip(i):
        events = np.float32([i / 20, 0.5])
        noise = np.random.default_rng(i).uniform(-0.1, 0.1, 4000).astype(np.float32)
        return Clip(f"c{i}", i % 3, "train", f"g{i}", events, load=lambda rate, channel: noise)

    corpus = Corpus("toy", ("a", "b", "c"), ("x", "y"), [clip(i) for i in range(20)], "", "00")
    return builder.prepare(
        corpus,
        data_dir=tmp_path_factory.mktemp("data"),
        front_end=audio.get_front_end("panns_16k"),
        clip_seconds=0.2,
        pad="zero",
        long="crop",
    ).split("train")


@pytest.mark.parametrize("kind", ["train", "eval"])
def test_a_stream_equals_gathering_from_memory(split, kind):
    if kind == "train":
        indices = batches.train_indices(len(split), 6, seed=0, epoch=0)
    else:
        indices, _ = batches.eval_indices(len(split), 6)
    arrays = split.arrays()
    streamed = list(batches.stream(split, indices))
    assert len(streamed) == len(indices)
    for batch, rows in zip(streamed, indices, strict=True):
        assert set(batch) == {"log_mel", "scene", "events"}
        for key, value in batch.items():
            assert value.dtype == arrays[key].dtype
            np.testing.assert_array_equal(value, arrays[key][rows])


def test_a_stream_reads_little_ahead():
    """Grain's own default reads 500 batches ahead: gigabytes."""
    seen = set()

    class Rows:
        def __len__(self):
            return 1000

        def __getitem__(self, i):
            seen.add(i)
            return dict(log_mel=np.zeros((2, 2), np.float32), scene=np.int32(0), events=np.zeros(1))

    indices, _ = batches.eval_indices(1000, 2)
    stream = batches.stream(Rows(), indices)
    next(stream)
    time.sleep(0.3)  # all that the threads will read
    assert len(seen) <= 40
