"""Log-mel spectrograms per second, against librosa in one process, in threads and in processes.

    python benchmarks/log_mel.py

Clips of 10 s of noise in memory, without decoding. ergl_jax takes batches, on one device and split
over one device per worker, as in pseudo-labelling. librosa's melspectrogram and power_to_db have
the same parameters and take one clip at a time; its workers have the clips already. Each returns
the spectrograms to the caller. They are compared before anything is timed.
"""

import multiprocessing
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import harness
import jax
import librosa
import numpy as np

from ergl_jax.audio import FRONT_ENDS, FrontEnd, get_front_end, log_mel
from ergl_jax.kernels.devices import shard_clips

TOLERANCE = 1e-3  # dB
# The front ends that librosa_log_mel computes
CHOICES = [x.name for x in FRONT_ENDS.values() if x.frames == "centred" and not x.offset]


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
    """The front end and the clips of a process of the pool."""

    front_end: FrontEnd
    clips: np.ndarray

    @classmethod
    def begin(cls, front_end: FrontEnd, clips: int) -> None:
        cls.front_end, cls.clips = front_end, draw(front_end, clips)

    @classmethod
    def work(cls, index: int) -> np.ndarray:
        return librosa_log_mel(cls.clips[index], cls.front_end)


def rows_of(name: str, options) -> list[list]:
    front_end, count, workers = get_front_end(name), options.clips, options.workers
    clips = draw(front_end, count)
    one_device = partial(log_mel, front_end=front_end)
    sharded, shardings = shard_clips(one_device, 1)
    sharded = jax.jit(sharded, in_shardings=shardings)

    def ours(run) -> np.ndarray:
        parts = [clips[at : at + options.batch] for at in range(0, count, options.batch)]
        queued = [run(part) for part in parts]
        return np.concatenate([np.asarray(part) for part in queued])

    def librosas(run) -> np.ndarray:
        return np.stack(list(run(lambda clip: librosa_log_mel(clip, front_end), clips)))

    # One core per process: with a thread per core in each, they would compete.
    os.environ |= {x: "1" for x in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    pools = multiprocessing.get_context("spawn")  # JAX has threads, so no forks
    with (
        pools.Pool(workers, Worker.begin, (front_end, count)) as pool,
        ThreadPoolExecutor(workers) as threads,
    ):
        calls = {
            f"ergl_jax, {jax.local_device_count()} devices": lambda: ours(sharded),
            "ergl_jax, one device": lambda: ours(one_device),
            "librosa": lambda: librosas(map),
            f"librosa, {workers} threads": lambda: librosas(threads.map),
            f"librosa, {workers} processes": lambda: np.stack(pool.map(Worker.work, range(count))),
        }
        first, *others = (call() for call in calls.values())
        difference = max(np.abs(x - first).max() for x in others)
        print(f"{name}: ergl_jax and librosa differ by {difference:.1e} dB at most")
        if not difference < TOLERANCE:
            raise SystemExit("the two front ends differ: nothing is timed")
        times = harness.time_in_turn(calls, options.rounds)
    base = next(iter(times.values()))
    return [
        [name, what, f"{count / statistics.median(each):.1f}", harness.ratio(each, base)]
        for what, each in times.items()
    ]


def main() -> None:
    parser = harness.parser(__doc__, rounds=7)
    add = parser.add_argument
    add("--front-ends", nargs="+", default=["paper", "panns_16k"], choices=CHOICES)
    add("--clips", type=harness.positive, default=64, help="in each round")
    add("--batch", type=harness.positive, default=16, help="clips that ergl_jax takes at a time")
    add("--workers", type=harness.positive, default=os.cpu_count(), help="devices or processes")
    options = parser.parse_args()
    if options.clips % options.workers or options.batch % options.workers:
        parser.error("--clips and --batch must be divisible by --workers")
    harness.use_cpu(options.workers, training=False)
    rows = [row for name in options.front_ends for row in rows_of(name, options)]
    header = ["front end", "", "clips/s", "time over the first row's"]
    print("\n" + harness.table(header, rows))


if __name__ == "__main__":
    harness.start(main)
