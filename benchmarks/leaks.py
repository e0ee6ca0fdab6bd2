"""Memory, threads and open files while the same is done many times over.

    python benchmarks/leaks.py

Small runs (configs/test.py, smaller still) of 200 epochs, from resident and from streamed data,
each epoch validated and saved; 300 classifications of a file; a dataset opened, read and dropped
200 times. After each epoch or call, once garbage is collected: the process's memory (VmRSS), which
the allocator's habits move by tens of MiB; the bytes that it has lent out (mallinfo2) and Python's
count of objects, which they do not; the bytes of all live JAX arrays, what devices say they hold,
threads and open files. Slopes leave out the first two; their standard error comes from the means
of blocks, as what follows on one another is alike. Prints a Markdown table.
"""

import argparse
import ctypes
import dataclasses
import gc
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

BLOCKS = 9  # of what a slope is fitted to
KIB = 1024
COLUMNS = {  # of the table: its field of a Sample, and the unit
    "memory, KiB": ("resident", KIB),
    "lent out, KiB": ("lent", KIB),
    "Python objects": ("objects", 1),
    "live arrays, KiB": ("arrays", KIB),
    "device memory, KiB": ("device", KIB),
}


@dataclasses.dataclass(frozen=True)
class Sample:
    """What this process holds."""

    resident: int  # bytes of memory
    lent: int  # bytes that malloc has lent out, 0 where it does not tell
    objects: int  # blocks of Python's own allocator
    arrays: int  # bytes of live JAX arrays
    device: int  # bytes that devices say are in use, 0 where they don't
    threads: int  # the kernel's count: XLA's and Grain's too
    files: int


def sample() -> Sample:
    import jax

    gc.collect()
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return Sample(
        resident=_resident(),
        lent=_lent(),
        objects=sys.getallocatedblocks(),
        arrays=sum(x.nbytes for x in jax.live_arrays()),
        device=sum(each.get("bytes_in_use", 0) for each in stats),
        threads=len(os.listdir("/proc/self/task")),
        files=len(os.listdir("/proc/self/fd")) - 1,  # the listing's own
    )


def _resident() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return KIB * next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


class _MallInfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def _lent() -> int:
    function = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if function is None:
        return 0
    function.restype = _MallInfo
    found = function()
    return found.uordblks + found.hblkhd  # on heaps, and mapped for themselves


def slope(values: list[float], skip: int) -> tuple[float, float]:
    """Least-squares growth a step after the first `skip`, and its standard error, by blocks."""
    blocks = np.array_split(np.asarray(values[skip:], float), BLOCKS)
    x = np.cumsum([len(block) for block in blocks]) - [len(block) / 2 for block in blocks]
    y = np.array([block.mean() for block in blocks])
    x, y = x - x.mean(), y - y.mean()
    growth = (x @ y) / (x @ x)
    rest = y - growth * x
    return growth, np.sqrt(rest @ rest / (BLOCKS - 2) / (x @ x))


def small_config(data_dir: Path, epochs: int, resident: str):
    """configs/test.py, smaller still."""
    from configs import test

    config = test.get_config()
    config.data.data_dir = str(data_dir)
    config.data.resident = resident
    config.data.clip_seconds = 2.0
    config.data.num_events = 2
    config.model.channels = 2
    config.train.epochs = epochs
    return config


def train(workdir: Path, data_dir: Path, epochs: int, resident: str) -> list[Sample]:
    """A Sample after each epoch of a run, and one after its end."""
    from ergl_jax.training import metric_writer, train

    gc.freeze()  # what is there already needn't be looked through each time
    samples, write = [], metric_writer.MetricWriter.write

    def writing(self, *arguments) -> None:
        write(self, *arguments)
        samples.append(sample())

    metric_writer.MetricWriter.write = writing
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
        return _repeated(lambda: model.classify(clip), calls)


def open_dataset(data_dir: Path, calls: int) -> list[Sample]:
    """A Sample after each time that a dataset is opened, read and dropped."""
    from ergl_jax.datasets import sources

    config = small_config(data_dir, 1, "always").data

    def call() -> None:
        sources.open_dataset(config).split("test").arrays()

    return _repeated(call, calls)


def _repeated(call: Callable[[], object], calls: int) -> list[Sample]:
    gc.freeze()  # what is there already needn't be looked through each time
    samples = []
    for _ in range(calls):
        call()
        samples.append(sample())
    return samples


def row(name: str, samples: list[Sample]) -> list[str]:
    """A line of the table."""
    skip = 2  # until then programs are compiled and caches filled
    cells = [name, str(len(samples))]
    for field, unit in COLUMNS.values():
        values = [getattr(each, field) / unit for each in samples]
        growth, error = slope(values, skip)
        span = f"{values[skip]:.0f} to {values[-1]:.0f}"
        cells += [f"{growth:+.3f} ± {error:.3f}", span] if any(values) else ["not told", ""]
    for field in ("threads", "files"):
        cells.append(f"{getattr(samples[skip], field)} to {getattr(samples[-1], field)}")
    return cells


def main() -> None:
    import harness

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--classifications", type=int, default=300)
    parser.add_argument("--openings", type=int, default=200)
    parser.add_argument("--csv", type=Path, help="all samples go there")
    options = parser.parse_args()
    rows = []

    def keep(name: str, samples: list[Sample]) -> None:
        rows.append(row(name, samples))
        print(*rows[-1], sep="; ", flush=True)
        if options.csv:
            with open(options.csv, "a", encoding="utf-8") as file:
                for number, each in enumerate(samples, start=1):
                    print(name, number, *dataclasses.astuple(each), sep=",", file=file)

    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for name, resident in (("resident", "always"), ("streamed", "never")):
            samples = train(root / name, root / "data", options.epochs, resident)
            keep(f"epochs, {name} data", samples[:-1])
            print(f"before and after the end of the run: {samples[-2:]}", flush=True)
        calls = options.classifications
        keep("classifications", classify(root / "resident" / "bundle", calls))
        keep("openings of a dataset", open_dataset(root / "data", options.openings))
    header = ["", "times"]
    for what in COLUMNS:
        header += [f"{what}: growth a time", "from, to"]
    print(harness.table([*header, "threads", "files"], rows))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    main()
