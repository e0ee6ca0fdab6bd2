"""Which rows make which batch, and batches streamed from disk."""

from __future__ import annotations

from collections.abc import Iterator

import grain
import numpy as np

from ergl_jax.datasets.scene_split import SceneSplit
from ergl_jax.errors import InputError

THREADS = 4
BATCHES_AHEAD = 4  # Grain's default of 500 takes gigabytes


def train_indices(num_examples: int, batch_size: int, *, seed: int, epoch: int) -> np.ndarray:
    """The rows of an epoch, (steps, batch_size) int32: a permutation cut into full batches.

    It depends only on seed and epoch, so a resumed run has the same batches. The rows that don't
    fill a batch are left out, different ones each epoch.

    Raises:
      InputError: batch_size below 1 or above num_examples.
    """
    check_batch_size(num_examples, batch_size)
    rng = np.random.default_rng(np.random.SeedSequence([seed, epoch]))
    steps = num_examples // batch_size
    order = rng.permutation(num_examples)[: steps * batch_size]
    return order.astype(np.int32).reshape(steps, batch_size)


def check_batch_size(num_examples: int, batch_size: int) -> None:
    """InputError for a batch below 1 or above `num_examples`."""
    if not 1 <= batch_size <= num_examples:
        raise InputError(
            f"a batch of {batch_size} from {num_examples} training clips: "
            f"set train.batch_size from 1 to {num_examples}"
        )


def eval_indices(num_examples: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Every row once, in order: (steps, batch_size) int32 and its mask, float32.

    The last batch is filled up with row 0 under mask 0.
    """
    steps = -(-num_examples // batch_size)
    flat = np.arange(steps * batch_size, dtype=np.int32)
    mask = flat < num_examples
    indices = np.where(mask, flat, 0).astype(np.int32)
    shape = (steps, batch_size)
    return indices.reshape(shape), mask.astype(np.float32).reshape(shape)


def stream(split: SceneSplit, indices: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """Reads batches from disk with Grain, in threads that prefetch.

    Args:
      split: the rows.
      indices: (steps, batch_size), from `train_indices` or `eval_indices`.

    Returns:
      An iterator of log_mel (B, F, M) float32, scene (B,) int32, events (B, E) float32 and, if the
      split has it, activity (B, F, E): what `arrays()` returns for each row of indices.
    """
    rows = indices.ravel()

    def read(i: int) -> dict[str, np.ndarray]:
        row = split[int(rows[i])]
        return {key: row[key] for key in row.keys() - {"name", "group"}}

    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=BATCHES_AHEAD)
    batches = grain.MapDataset.range(len(rows)).map(read).batch(indices.shape[1])
    return iter(batches.to_iter_dataset(options))
