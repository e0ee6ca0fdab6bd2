"""Log-mel spectrograms a second, beside librosa in one process, in threads and in processes.

    python benchmarks/log_mel.py

Clips of 10 s of noise that lie in memory: no decoding. ergl_jax takes batches, on one device and
shared out to one for each worker, as pseudo-labelling does. librosa's melspectrogram and
power_to_db have the front end's own parameters, take a clip at a time as its users do, and their
workers hold the clips already; each returns the spectrograms to the caller. The spectrograms are
compared first. Prints a Markdown table.
"""

import argparse
import functools
import multiprocessing
import os
import statistics
from concurrent.futures import ThreadPoolExecutor

import harness
import jax
import librosa
import numpy as np

from ergl_jax.audio import FrontEnd, get_front_end, log_mel

TOLERANCE = 1e-3  # dB


def draw(front_end: FrontEnd, clips: int) -> np.ndarray:
    """Noise (B, L), the same in every process."""
    noise = np.random.default_rng(0).standard_normal((clips, front_end.num_samples(10.0)))
    return np.float32(0.1 * noise)


def librosa_log_mel(waveform: np.ndarray, front_end: FrontEnd) -> np.ndarray:
    """(L,) -> (F, M) in dB."""
    mel = librosa.feature.melspectrogram(
        y=waveform,
        sr=front_end.sample_rate,
        n_fft=front_end.n_fft,
        hop_length=front_end.hop,
        window=front_end.window,
        center=True,
        pad_mode="reflect",
        power=2.0,
        n_mels=front_end.n_mels,
        fmin=front_end.fmin,
        fmax=front_end.fmax,
    )
    return librosa.power_to_db(mel, ref=1.0, amin=1e-10, top_db=None).T


class Worker:
    """What a process of the pool holds: the front end and the clips."""

    front_end: FrontEnd
    clips: np.ndarray

    @classmethod
    def begin(cls, front_end: FrontEnd, clips: int) -> None:
        cls.front_end, cls.clips = front_end, draw(front_end, clips)

    @classmethod
    def work(cls, index: int) -> np.ndarray:
        return librosa_log_mel(cls.clips[index], cls.front_end)


def rows_of(name: str, options) -> list[list]:
    front_end, count = get_front_end(name), options.clips
    clips, workers = draw(front_end, count), options.workers
    one = functools.partial(log_mel, front_end=front_end)
    shared, where = harness.shared_out(one, 1)
    shared = jax.jit(shared, in_shardings=where)

    def ours(run) -> np.ndarray:
        parts = [clips[at : at + options.batch] for at in range(0, count, options.batch)]
        queued = [run(part) for part in parts]
        return np.concatenate([np.asarray(part) for part in queued])

    def librosas(run) -> np.ndarray:
        return np.stack(list(run(lambda clip: librosa_log_mel(clip, front_end), clips)))

    # Each process computes on one core: as many as there are cores would else crowd each other.
    os.environ |= {x: "1" for x in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    # Not forked: JAX has threads.
    with (
        multiprocessing.get_context("spawn").Pool(
            workers, Worker.begin, (front_end, count)
        ) as pool,
        ThreadPoolExecutor(workers) as threads,
    ):
        calls = {
            f"ergl_jax, {jax.local_device_count()} devices": lambda: ours(shared),
            "ergl_jax, one device": lambda: ours(one),
            "librosa": lambda: librosas(map),
            f"librosa, {workers} threads": lambda: librosas(threads.map),
            f"librosa, {workers} processes": lambda: np.stack(pool.map(Worker.work, range(count))),
        }
        first, *others = (call() for call in calls.values())
        difference = max(np.abs(x - first).max() for x in others)
        print(f"{name}: ergl_jax and librosa differ by {difference:.1e} dB at most")
        if not difference < TOLERANCE:
            raise SystemExit("these are two different front ends: nothing is timed")
        times = harness.in_turn(calls, options.rounds)
    return [
        [
            name,
            what,
            f"{count / statistics.median(each):.1f}",
            harness.ratio(each, next(iter(times.values()))),
        ]
        for what, each in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--front-ends", nargs="+", default=["paper", "panns_16k"])
    add("--clips", type=int, default=64, help="in each round")
    add("--batch", type=int, default=16, help="clips that ergl_jax takes at a time")
    add("--workers", type=int, default=os.cpu_count(), help="devices, threads and processes")
    add("--rounds", type=int, default=7)
    options = parser.parse_args()
    if options.clips % options.workers or options.batch % options.workers:
        parser.error("--clips and --batch must divide by --workers")
    jax.config.update("jax_num_cpu_devices", options.workers)
    rows = [row for name in options.front_ends for row in rows_of(name, options)]
    header = ["front end", "", "clips/s", "time over the first row's"]
    print("\n" + harness.table(header, rows))


if __name__ == "__main__":
    main()
