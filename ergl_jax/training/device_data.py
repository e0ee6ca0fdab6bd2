"""The data of a run: prepared once, then in the devices' memory or streamed from disk.

Both give the same batches: the clips of a step follow from the seed and the epoch alone.
"""

from collections.abc import Iterator

import jax
import numpy as np

from ergl_jax.config import DataConfig
from ergl_jax.datasets import sources
from ergl_jax.datasets.batches import stream
from ergl_jax.datasets.builder import SceneDataset
from ergl_jax.datasets.manifest import Corpus
from ergl_jax.datasets.scene_split import SceneSplit
from ergl_jax.training import hosts
from ergl_jax.training.step import local_share

CPU_BYTES = 4 << 30  # the limit where a device does not report its memory


def open_dataset(config: DataConfig, corpus: Corpus | None = None) -> SceneDataset:
    """The prepared dataset; with several processes, the first one prepares it.

    `corpus` is that of `config`, by default read here.
    """
    dataset = hosts.main_process_first(lambda: sources.open_dataset(config, corpus))
    hosts.check_same(
        dataset.fingerprint, "their recordings", "let them share a disk, or copy as `cp -p` does"
    )
    return dataset


def load(split: SceneSplit, events: np.ndarray) -> dict[str, np.ndarray]:
    """The whole split on the host: log_mel (N, F, M), scene (N,) and the chosen events (N, n).

    Also their activity (N, F, n), if the split has it.
    """
    arrays = split.arrays()
    return _choose({key: arrays[key] for key in arrays.keys() - {"name", "group"}}, events)


def _choose(batch: dict[str, np.ndarray], events: np.ndarray) -> dict[str, np.ndarray]:
    return batch | {key: batch[key][..., events] for key in batch.keys() & {"events", "activity"}}


def is_resident(mode: str, split: SceneSplit) -> bool:
    """Whether to keep the split in every device's memory; "auto": if half of it is enough."""
    if mode != "auto":
        return mode == "always"
    row = split[0]
    needed = len(split) * sum(row[key].nbytes for key in row.keys() & {"log_mel", "activity"})
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        fits = needed <= stats["bytes_limit"] // 2
    else:
        fits = needed * jax.local_device_count() <= CPU_BYTES
    return not hosts.any_process(not fits)


def local_batches(
    split: SceneSplit, events: np.ndarray, indices: np.ndarray
) -> Iterator[dict[str, np.ndarray]]:
    """This process's share of each of the batches `indices` (S, B), streamed from disk."""
    share = np.moveaxis(local_share(indices), 0, 1).reshape(len(indices), -1)
    for batch in stream(split, share):
        yield _choose(batch, events)


def labels(split: SceneSplit) -> tuple[np.ndarray, np.ndarray]:
    """The labels of a split, without its features: scene (N,) and events (N, E)."""
    rows = (split[index] for index in range(len(split)))
    scene, events = zip(*((row["scene"], row["events"]) for row in rows), strict=True)
    return np.stack(scene), np.stack(events)


def band_statistics(split: SceneSplit) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each band over all frames of a split: (M,) float32 each.

    A band that never changes has a standard deviation of 1.
    """
    count, total, squares = 0, np.zeros(()), np.zeros(())
    for index in range(len(split)):
        x = split[index]["log_mel"].astype(np.float64)  # (F, M)
        count += len(x)
        total = total + x.sum(axis=0)
        squares = squares + np.square(x).sum(axis=0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - np.square(mean), 0.0))
    return mean.astype(np.float32), np.where(std > 1e-6, std, 1.0).astype(np.float32)
