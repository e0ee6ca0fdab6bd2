"""Memory, threads and open files while the same work is repeated many times.

    python benchmarks/leaks.py

Small runs (configs/test.py, smaller still) of 200 epochs, with data in device memory and streamed,
each epoch validated and saved; 300 classifications of a file; a dataset opened, read and dropped
200 times. After each epoch or call and garbage collection: the process's memory (VmRSS), which
varies by tens of MiB with the allocator; the bytes that malloc has handed out (mallinfo2) and the
blocks of Python's allocator, which don't; the bytes of live JAX arrays and of device memory,
threads and open files. Slopes leave out the first two samples; their standard error is that of the
means of blocks, since neighbouring samples are correlated.
"""

import ctypes
import dataclasses
import gc
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for tests, which load this file

import harness  # noqa: E402

SKIP = 2  # samples, until programs are compiled and caches filled
BLOCKS = 9  # whose means a slope is fitted to
KIB = 1024
COLUMNS = {  # of the table: its field of a Sample, and the unit
    "memory, KiB": ("resident", KIB),
    "malloc, KiB": ("lent", KIB),
    "Python objects": ("objects", 1),
    "live arrays, KiB": ("arrays", KIB),
    "device memory, KiB": ("device", KIB),
}


@dataclasses.dataclass(frozen=True)
class Sample:
    """What this process uses."""

    resident: int  # bytes of memory
    lent: int  # bytes that malloc has handed out; 0 without glibc
    objects: int  # blocks of Python's allocator
    arrays: int  # bytes of live JAX arrays
    device: int  # bytes of device memory in use; 0 for devices that don't report it
    threads: int  # of the kernel: XLA's and Grain's too
    files: int


def sample() -> Sample:
    import jax

    gc.collect()
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return Sample(
        resident=harness.resident_bytes("VmRSS:"),
        lent=_malloc_bytes(),
        objects=sys.getallocatedblocks(),
        arrays=sum(x.nbytes for x in jax.live_arrays()),
        device=sum(each.get("bytes_in_use", 0) for each in stats),
        threads=len(os.listdir("/proc/self/task")),
        files=len(os.listdir("/proc/self/fd")) - 1,  # the listing's own
    )


class _MallInfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def _malloc_bytes() -> int:
    function = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if function is None:
        return 0
    function.restype = _MallInfo
    found = function()
    return found.uordblks + found.hblkhd  # on heaps, and mapped directly


def slope(values: list[float]) -> tuple[float, float]:
    """Least-squares growth per sample after the first SKIP, and its standard error, by blocks."""
    blocks = np.array_split(np.asarray(values[SKIP:], float), BLOCKS)
    x = np.cumsum([len(block) for block in blocks]) - [len(block) / 2 for block in blocks]
    y = np.array([block.mean() for block in blocks])
    x, y = x - x.mean(), y - y.mean()
    growth = (x @ y) / (x @ x)
    rest = y - growth * x
    return growth, np.sqrt(rest @ rest / (BLOCKS - 2) / (x @ x))


def small_config(data_dir: Path, epochs: int, resident: str):
    """configs/test.py, smaller still."""
    from configs import test
    from ergl_jax.config import Config

    fields = {"data.data_dir": str(data_dir), "data.resident": resident, "train.epochs": epochs}
    fields |= {"data.clip_seconds": 2.0, "data.num_events": 2, "model.channels": 2}
    return Config.from_dict(test.get_config().to_dict()).replace(**fields)


def train(workdir: Path, data_dir: Path, epochs: int, resident: str) -> list[Sample]:
    """A Sample after each epoch of a run, and one after its end."""
    from ergl_jax.training import metric_writer, train

    gc.freeze()  # so that existing objects aren't traversed each time
    samples, write = [], metric_writer.MetricWriter.write

    def write_and_sample(self, *arguments) -> None:
        write(self, *arguments)
        samples.append(sample())

    metric_writer.MetricWriter.write = write_and_sample
    try:
        train.train(small_config(data_dir, epochs, resident), workdir)
    finally:
        metric_writer.MetricWriter.write = write
    return [*samples, sample()]


def classify(bundle: Path, calls: int) -> list[Sample]:
    """A Sample after each classification of a file."""
    import soundfile

    import ergl_jax

    with tempfile.TemporaryDirectory() as directory:
        clip = Path(directory) / "clip.wav"
        soundfile.write(clip, np.random.default_rng(0).uniform(-0.1, 0.1, 44100), 44100)
        model = ergl_jax.load(bundle)
        return repeat(lambda: model.classify(clip), calls)


def open_dataset(data_dir: Path, calls: int) -> list[Sample]:
    """A Sample after each time that a dataset is opened, read and dropped."""
    from ergl_jax.datasets import sources

    config = small_config(data_dir, 2, "always").data
    return repeat(lambda: sources.open_dataset(config).split("test").arrays(), calls)


def repeat(call: Callable[[], object], calls: int) -> list[Sample]:
    gc.freeze()  # so that existing objects aren't traversed each time
    samples = []
    for _ in range(calls):
        call()
        samples.append(sample())
    return samples


def row(name: str, samples: list[Sample]) -> list[str]:
    """A line of the table."""
    cells = [name, str(len(samples))]
    for field, unit in COLUMNS.values():
        values = [getattr(each, field) / unit for each in samples]
        growth, error = slope(values)
        span = f"{values[SKIP]:.0f} to {values[-1]:.0f}"
        cells += [f"{growth:+.3f} ± {error:.3f}", span] if any(values) else ["not reported", ""]
    for field in ("threads", "files"):
        cells.append(f"{getattr(samples[SKIP], field)} to {getattr(samples[-1], field)}")
    return cells


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--epochs", type=harness.positive, default=200)
    parser.add_argument("--classifications", type=harness.positive, default=300)
    parser.add_argument("--openings", type=harness.positive, default=200)
    options = parser.parse_args()
    calls, openings = options.classifications, options.openings
    if min(options.epochs, calls, openings) < SKIP + BLOCKS:
        parser.error(f"each number must be at least {SKIP + BLOCKS}")
    rows = []

    def keep(name: str, samples: list[Sample]) -> None:
        rows.append(row(name, samples))
        print(*rows[-1], sep="; ", flush=True)

    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for name, resident in (("resident", "always"), ("streamed", "never")):
            samples = train(root / name, root / "data", options.epochs, resident)
            keep(f"epochs, {name} data", samples[:-1])
            print(f"before and after the end of the run: {samples[-2:]}", flush=True)
        keep("classifications", classify(root / "resident" / "bundle", calls))
        keep("openings of a dataset", open_dataset(root / "data", openings))
    header = ["", "times"]
    for what in COLUMNS:
        header += [f"{what}: growth each time", "from, to"]
    print(harness.table([*header, "threads", "files"], rows))


if __name__ == "__main__":
    harness.start(main)
