"""Which rows make which batch, and the same batches from memory and from disk."""

import time

import numpy as np
import pytest

from ergl_jax import audio
from ergl_jax.datasets import batches, builder
from ergl_jax.datasets.manifest import Clip, Corpus
from ergl_jax.errors import InputError


def test_train_indices_are_permutations_that_depend_on_seed_and_epoch():
    indices = batches.train_indices(23, 5, seed=1, epoch=0)
    assert indices.shape == (4, 5) and indices.dtype == np.int32
    assert len(set(indices.ravel())) == 20 and set(indices.ravel()) <= set(range(23))
    np.testing.assert_array_equal(indices, batches.train_indices(23, 5, seed=1, epoch=0))
    for seed, epoch in ((1, 1), (0, 0), (0, 1)):
        assert (batches.train_indices(23, 5, seed=seed, epoch=epoch) != indices).any()
    used = {i for e in range(20) for i in batches.train_indices(9, 8, seed=0, epoch=e).ravel()}
    assert used == set(range(9))  # every row over the epochs


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(InputError, match="batch of 8 from 7 .*train.batch_size"):
        batches.train_indices(7, 8, seed=0, epoch=0)


@pytest.mark.parametrize("count", [1, 4, 5])
def test_eval_indices_visit_each_row_once_under_the_mask(count):
    indices, mask = batches.eval_indices(count, 4)
    assert indices.shape == mask.shape == (-(-count // 4), 4)
    assert indices.dtype == np.int32 and mask.dtype == np.float32
    np.testing.assert_array_equal(indices[mask == 1], np.arange(count))
    assert (indices[mask == 0] == 0).all() and mask.sum() == count


def test_a_stream_equals_gathering_from_memory(tmp_path):
    def clip(i):
        noise = np.random.default_rng(i).uniform(-0.1, 0.1, 4000).astype(np.float32)
        return Clip(f"c{i}", i % 3, "train", f"g{i}", np.float32([i / 20, 0.5]), lambda *_: noise)

    corpus = Corpus("toy", ("a", "b", "c"), ("x", "y"), [clip(i) for i in range(20)], "", "00")
    front_end = audio.get_front_end("panns_16k")
    settings = dict(front_end=front_end, clip_seconds=0.2, pad="zero", long="crop")
    split = builder.prepare(corpus, data_dir=tmp_path, **settings).split("train")
    arrays = split.arrays()
    for indices in (batches.train_indices(20, 6, seed=0, epoch=0), batches.eval_indices(20, 6)[0]):
        for batch, rows in zip(batches.stream(split, indices), indices, strict=True):
            assert set(batch) == {"log_mel", "scene", "events"}
            for key, value in batch.items():
                assert value.dtype == arrays[key].dtype
                np.testing.assert_array_equal(value, arrays[key][rows])


def test_a_stream_reads_little_ahead():
    """Grain's default reads 500 batches ahead: gigabytes."""
    seen = set()

    class Rows:
        def __getitem__(self, i):
            seen.add(i)
            return dict(log_mel=np.zeros((2, 2), np.float32), scene=np.int32(0), events=np.zeros(1))

    next(batches.stream(Rows(), batches.eval_indices(1000, 2)[0]))
    time.sleep(0.3)  # all that the threads will read
    assert len(seen) <= 40
