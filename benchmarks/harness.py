"""What benchmarks share: many training runs, calls timed in turn, the settings, Markdown tables.

Of many runs some go on at once, each in a work directory of its own; a finished one is kept.
"""

import csv
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))  # so that benchmarks find configs, which is not installed


def run_all(runs: dict[str, list[str]], root: Path, *, at_once: int) -> None:
    """`python run.py <flags> --workdir=root/<name>` for each name of `runs`.

    The CPU cores are shared out among the runs that go on at once: two small models train faster
    side by side, each on half of the cores, than one after the other on all.
    """
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // at_once)
    free = Queue()
    for slot in range(at_once):
        free.put(cores[slot * share % len(cores) :][:share])

    def work(name: str) -> None:
        workdir = root / name
        if (workdir / "results.json").exists():
            return
        workdir.mkdir(parents=True, exist_ok=True)
        mine, start = free.get(), time.perf_counter()
        command = [sys.executable, str(REPOSITORY / "run.py"), *runs[name], f"--workdir={workdir}"]
        with open(workdir / "log.txt", "a", encoding="utf-8") as log:
            code = subprocess.run(
                command,
                cwd=REPOSITORY,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: os.sched_setaffinity(0, mine),
                check=False,
            ).returncode
        free.put(mine)
        if code:
            raise SystemExit(f"{name} failed with status {code}: see {workdir}/log.txt")
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(work, runs))


def results(workdir: Path) -> dict:
    """What a finished run wrote into results.json."""
    return json.loads((workdir / "results.json").read_text(encoding="utf-8"))


def predictions(workdir: Path) -> list[dict[str, str]]:
    """The rows of predictions.csv: clip, scene, predicted and a probability for each scene."""
    with open(workdir / "predictions.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def epochs(workdir: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl."""
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def told_by(script: str, *arguments: str, environment: dict[str, str]):
    """What a script of ours, run in a process of its own, prints as JSON in its last line."""
    done = subprocess.run(
        [sys.executable, script, *arguments],
        cwd=REPOSITORY,
        env=environment | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def use_cpu_as_training_does(devices: int) -> None:
    """What run.py asks of JAX and XLA for so many devices of the CPU; before JAX is used."""
    import jax  # not above: what only starts other programs needs none

    from ergl_jax import cpu

    jax.config.update("jax_num_cpu_devices", devices)
    if devices == 1:
        cpu.use_threaded_convolutions()
    cpu.use_barriers()


PAUSE = 0.1  # seconds before each pair of calls: OpenMP's threads go on spinning after PyTorch's


def in_turn(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each of `rounds`, in which one has its turn after another.

    What else the machine does then falls on all alike. In its turn each is called twice and the
    second call is timed, as in training, where a step follows a step: the first fetches back the
    memory that others took meanwhile. A call returns when its work is done, not when it is
    queued.
    """
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(PAUSE)
            call()
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return times


def ratio(times: list[float], base: list[float]) -> str:
    """`times` over `base`, round by round: median, lowest and highest."""
    each = [a / b for a, b in zip(times, base, strict=True)]
    return f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"


def kilobytes(field: str) -> int:
    """A field of this process's status, such as "VmRSS:"; OSError elsewhere than on Linux."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def peak_growth(call: Callable[[], object]) -> int | None:
    """Bytes by which this process's memory grows at most in a call; None where Linux can't tell."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed and kept would hide what is taken
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
        before = kilobytes("VmRSS:")
        call()
        return 1024 * (kilobytes("VmHWM:") - before)
    except (AttributeError, OSError):
        return None


def shared_out(function: Callable, arguments: int) -> tuple[Callable, tuple]:
    """`function` with clips, its last argument and its result, shared out to all devices.

    And where its arguments then lie, the first ones whole on each device.
    """
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(jax.local_devices(), ("clips",))
    specs = (PartitionSpec(),) * (arguments - 1) + (PartitionSpec("clips"),)
    shared = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=specs[-1])
    return shared, tuple(NamedSharding(mesh, spec) for spec in specs)


def planned(compiled) -> int:
    """Bytes that XLA plans for temporaries of a compiled JAX program that runs on all devices."""
    import jax

    return compiled.memory_analysis().temp_size_in_bytes * jax.local_device_count()


def memory(compiled, call: Callable[[], object]) -> int:
    """Bytes that a call of a compiled JAX program needs beside its arguments.

    The larger of what XLA plans for temporaries and of what the process grows by: the first knows
    nothing of libraries that allocate for themselves, the second nothing of a GPU.
    """
    return max(planned(compiled), peak_growth(call) or 0)


def beside(
    makers: dict[str, Callable[[], Callable]],
    *,
    rounds: int,
    clips: int,
    flops: float,
    peak_tflops: float | None,
) -> list[list[str]]:
    """Rows of a table that sets implementations beside the first one, in turn in each round.

    Each of `makers` compiles what it has to and returns a call on `clips` clips that counts
    `flops`; what a maker fails with is said in its row. Columns: BESIDE.
    """
    calls, failed = {}, {}
    for name, make in makers.items():
        try:
            calls[name] = make()
        except Exception as error:  # noqa: BLE001
            failed[name] = f"failed: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
    times = in_turn(calls, rounds)
    medians = {name: statistics.median(each) for name, each in times.items()}
    first, rows = next(iter(makers)), []
    for name in makers:
        if name in failed:
            rows.append([name, failed[name], *[""] * (len(BESIDE) - 2)])
            continue
        median, speed = medians[name], flops / medians[name] / 1e12
        share = f" ({100 * speed / peak_tflops:.0f} %)" if peak_tflops else ""
        span = f"{1000 * min(times[name]):.1f} to {1000 * max(times[name]):.1f}"
        row = [name, f"{1000 * median:.1f}", span, f"{clips / median:.2f}", f"{speed:.3f}{share}"]
        rows.append([*row, ratio(times[name], times[first]) if first in times else ""])
    return rows


BESIDE = ["", "median, ms", "all rounds, ms", "clips/s", "TFLOP/s", "time over the first row's"]


@dataclass(frozen=True)
class Setting:
    """A model as configs/ train it, and the batch of a step."""

    config: object  # as configs/ergl.py's
    events: int  # n
    batch: int  # clips of a step
    frames: int  # F

    scenes = 10  # of TUT 2018, of ESC-10 and of the synthetic corpus
    mels = 64


SETTINGS = ("quickstart", "esc10", "paper")


def setting(name: str, *, gpu: bool = False) -> Setting:
    """One of SETTINGS. The paper's batch of 64 is a GPU's; on CPU it is 2."""
    from configs import ergl, esc10
    from ergl_jax.audio import get_front_end

    config = {
        "quickstart": lambda: ergl.get_config("synthetic"),
        "esc10": esc10.get_config,
        "paper": ergl.get_config,
    }[name]()
    data, batch = config.data, config.train.batch_size
    if name == "paper" and not gpu:
        batch = 2
    frames = get_front_end(data.front_end).num_frames(data.clip_seconds)
    return Setting(config, data.num_events, batch, frames)


def table(header: list[str], rows: list[list]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def mean_std(values: list[float]) -> str:
    """Mean ± standard deviation (of the sample) of accuracies in 0..1, in %."""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{100 * mean:.1f}"
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return f"{100 * mean:.1f} ± {100 * variance**0.5:.1f}"
