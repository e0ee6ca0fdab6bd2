"""What benchmarks share: flags, settings, training runs, timing, memory, Markdown tables."""

import argparse
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
sys.path.insert(0, str(REPOSITORY))  # for configs, which is not installed

from ergl_jax.errors import InputError, Parser, command  # noqa: E402


def parser(doc: str, *, rounds: int = 0) -> argparse.ArgumentParser:
    """A parser described by the first line of `doc`, with --rounds if that has a default."""
    made = Parser(description=doc.partition("\n")[0])
    if rounds:
        made.add_argument("--rounds", type=positive, default=rounds, help="of calls, in turn")
    return made


def positive(text: str) -> int:
    """The type of flags that count something."""
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def start(main: Callable[[], None]) -> None:
    """Runs a benchmark's `main`; an InputError ends the program with one line and status 2."""
    if status := command(resumes=False)(main)():
        sys.exit(status)


def run_all(runs: dict[str, list[str]], root: Path, *, at_once: int) -> None:
    """`python run.py <flags> --workdir=root/<name>` for each name of `runs`; keeps finished runs.

    Runs at the same time share the CPU cores: two small models train faster side by side, each on
    half of the cores, than one after the other on all.
    """
    cores = sorted(os.sched_getaffinity(0))
    size = max(1, len(cores) // at_once)
    free: Queue = Queue()
    for slot in range(at_once):
        free.put(cores[slot * size % len(cores) :][:size])

    def work(name: str) -> None:
        workdir = root / name
        if (workdir / "results.json").exists():
            return
        workdir.mkdir(parents=True, exist_ok=True)
        mine = free.get()
        flags = [*runs[name], f"--workdir={workdir.absolute()}"]
        with open(workdir / "log.txt", "a", encoding="utf-8") as log:
            status = subprocess.run(
                [sys.executable, str(REPOSITORY / "run.py"), *flags],
                cwd=REPOSITORY,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: os.sched_setaffinity(0, mine),
                check=False,
            ).returncode
        free.put(mine)
        if status:
            raise InputError(f"{name} failed with status {status}: see {workdir}/log.txt")

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(work, runs))


def results(workdir: Path) -> dict:
    """results.json of a finished run."""
    return json.loads((workdir / "results.json").read_text(encoding="utf-8"))


def predictions(workdir: Path) -> list[dict[str, str]]:
    """The rows of predictions.csv: clip, scene, predicted and a probability for each scene."""
    with open(workdir / "predictions.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run_script(script: str, *arguments: str, environment: dict[str, str] | None = None):
    """Runs one of our scripts in a new process; returns the JSON in its last line of output."""
    done = subprocess.run(
        [sys.executable, script, *arguments],
        cwd=REPOSITORY,
        env=(environment or dict(os.environ)) | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message: out of memory?"]
        raise InputError(f"{Path(script).name}: status {done.returncode}: {lines[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def use_cpu(devices: int, *, training: bool = True) -> None:
    """Sets JAX's CPU devices and XLA's flags as run.py does, or as `ergl` if not `training`.

    Call it before any other use of JAX.
    """
    import jax  # not above: programs that only start others don't need it

    from ergl_jax.kernels import cpu

    jax.config.update("jax_num_cpu_devices", devices)
    if devices == 1:
        cpu.use_threaded_convolutions()
    if training:
        cpu.use_barriers()


PAUSE = 0.1  # seconds before each pair of calls: PyTorch's OpenMP threads keep spinning for a while


def time_in_turn(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each of `rounds`, in which every call has its turn.

    So other load on the machine affects all alike. In its turn each is called twice and the second
    call is timed, as in training, where step follows step: the first call gets back the memory that
    the others have taken. A call must return when its work is done, not when it is queued.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(PAUSE)
            call()
            begin = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begin)
    return times


def ratio(times: list[float], base: list[float]) -> str:
    """`times` over `base`, round by round: median, lowest and highest."""
    each = [a / b for a, b in zip(times, base, strict=True)]
    return f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"


def resident_bytes(field: str) -> int:
    """A field of this process's status in bytes, such as "VmRSS:"; OSError except on Linux."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def peak_growth(call: Callable[[], object]) -> int | None:
    """Bytes by which this process's memory grows at most in a call; None except on Linux."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that is kept would hide what is taken
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak
        before = resident_bytes("VmRSS:")
        call()
        return resident_bytes("VmHWM:") - before
    except (AttributeError, OSError):
        return None


def planned_bytes(compiled) -> int:
    """Bytes that XLA plans for temporaries of a compiled program that runs on all devices."""
    import jax

    return compiled.memory_analysis().temp_size_in_bytes * jax.local_device_count()


def needed_bytes(compiled, call: Callable[[], object]) -> int:
    """Bytes that a call of a compiled program needs, without its arguments.

    The larger of XLA's plan, which omits libraries that allocate for themselves, and the growth of
    the process, which omits a GPU.
    """
    return max(planned_bytes(compiled), peak_growth(call) or 0)


def compare(
    makers: dict[str, Callable[[], Callable]],
    *,
    rounds: int,
    clips: int,
    flops: float,
    peak_tflops: float | None = None,
) -> list[list[str]]:
    """Times implementations in turn; rows of a table with the columns COMPARED.

    Each of `makers` compiles what it needs and returns a call on `clips` clips of `flops`
    operations. A maker's error is reported in its row.
    """
    calls, failed = {}, {}
    for name, make in makers.items():
        try:
            calls[name] = make()
        except Exception as error:  # noqa: BLE001
            failed[name] = f"failed: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
    times = time_in_turn(calls, rounds)
    first, rows = next(iter(makers)), []
    for name in makers:
        if name in failed:
            rows.append([name, failed[name], *[""] * (len(COMPARED) - 2)])
            continue
        median = statistics.median(times[name])
        speed = flops / median / 1e12
        share = f" ({100 * speed / peak_tflops:.0f} %)" if peak_tflops else ""
        span = f"{1000 * min(times[name]):.1f} to {1000 * max(times[name]):.1f}"
        row = [name, f"{1000 * median:.1f}", span, f"{clips / median:.2f}", f"{speed:.3f}{share}"]
        rows.append([*row, ratio(times[name], times[first]) if first in times else ""])
    return rows


COMPARED = ["", "median, ms", "all rounds, ms", "clips/s", "TFLOP/s", "time over the first row's"]


@dataclass(frozen=True)
class Setting:
    """A model as configs/ train it, and the batch of a step."""

    config: object  # a Config
    events: int  # n
    batch: int  # clips of a step
    frames: int  # F

    scenes = 10  # of TUT 2018, of ESC-10 and of the synthetic corpus
    mels = 64


SETTINGS = ("quickstart", "esc10", "paper")


def setting(name: str, *, gpu: bool = False) -> Setting:
    """One of SETTINGS. The paper's batch of 64 is for a GPU; on CPU it is 2."""
    from configs import ergl, esc10
    from ergl_jax.audio import get_front_end
    from ergl_jax.config import Config

    config = {
        "quickstart": lambda: ergl.get_config("synthetic"),
        "esc10": esc10.get_config,
        "paper": ergl.get_config,
    }[name]()
    config = Config.from_dict(config.to_dict())
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
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}"
