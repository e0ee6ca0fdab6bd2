"""Clips per second of pseudo-labelling, against the same Cnn14_16k in PyTorch, and of the port.

    python benchmarks/pseudo_label.py --root runs/pseudo_label

Random weights in the original format are ported in a process of their own, whose seconds and peak
memory are printed. Then both label the same WAV files of 10 s, in turn, decoding included; PyTorch
as PANNs' own inference does, in evaluation mode without gradients. JAX compiles once per run, so
its clips per second are those of a long run minus a short one's. CPU seconds are more reliable than
the clock on a machine with other load.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import harness
import numpy as np
import soundfile
import torch

from ergl_jax import bundle as bundles
from ergl_jax.audio import read_audio
from ergl_jax.kernels.cpu import use_cores
from ergl_jax.training import pseudo_labels

sys.path.insert(0, str(harness.REPOSITORY / "tests"))
import torch_panns  # noqa: E402

RATE, SECONDS = 16000, 10.0
PORT = """
import resource, sys, time
from pathlib import Path
start = time.perf_counter()
import panns_checkpoint
panns_checkpoint.port(Path(sys.argv[1]), name="Cnn14_16k").bundle.save(Path(sys.argv[2]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"port: {time.perf_counter() - start:.1f} s, imports included, {peak:.0f} MB at its peak")
"""


def write_manifest(path: Path, clips: int) -> Path:
    """Writes clips of noise, and their manifest."""
    rows = ["file,scene"]
    for i in range(clips):
        noise = 0.1 * np.random.default_rng(i).standard_normal(int(SECONDS * RATE))
        soundfile.write(path.with_name(f"{i}.wav"), noise, RATE)
        rows.append(f"{i}.wav,none")
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def timed(function, *arguments) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of a call by the clock and of the CPU (2,), and its result."""
    begin = np.array([time.perf_counter(), time.process_time()])
    result = function(*arguments)
    return np.array([time.perf_counter(), time.process_time()]) - begin, result


def with_jax(bundle, manifest: Path, batch_size: int) -> np.ndarray:
    out = manifest.with_suffix(".npz")
    pseudo_labels.label(
        bundle,
        manifest,
        out,
        clip_seconds=SECONDS,
        pad="zero",
        long="crop",
        batch_size=batch_size,
    )
    return np.load(out)["probabilities"]


def with_torch(pann, directory: Path, clips: int, batch_size: int) -> np.ndarray:
    found = []
    for first in range(0, clips, batch_size):
        names = [directory / f"{i}.wav" for i in range(first, min(first + batch_size, clips))]
        waveforms = np.stack([read_audio(name, RATE) for name in names])
        found.append(pann(torch.from_numpy(waveforms))[0].numpy())
    return np.concatenate(found)


def main() -> None:
    parser = harness.parser(__doc__, rounds=7)
    parser.add_argument("--root", type=Path, default=Path("runs/pseudo_label"))
    parser.add_argument("--batch_size", type=harness.positive, default=8)
    parser.add_argument("--batches", type=harness.positive, default=4, help="timed, in each round")
    options = parser.parse_args()
    root, size = options.root.resolve(), options.batch_size
    use_cores(size)  # as data_prep/pseudo_label.py does
    root.mkdir(parents=True, exist_ok=True)
    pann = torch_panns.PANN("cnn14", "panns_16k")
    checkpoint = torch_panns.save(pann, root / "random.pth")
    paths = [str(harness.REPOSITORY), str(harness.REPOSITORY / "data_prep")]
    subprocess.run(
        [sys.executable, "-c", PORT, checkpoint, root / "bundle"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        check=True,
    )
    bundle = bundles.load(root / "bundle")
    clips = (options.batches + 1) * size
    short = write_manifest(root / "short.csv", size)
    long = write_manifest(root / "long.csv", clips)
    with_torch(pann, root, 1, 1)
    rows, ratios = [], []
    for number in range(1, options.rounds + 1):
        begin, _ = timed(with_jax, bundle, short, size)
        whole, found = timed(with_jax, bundle, long, size)
        other, expected = timed(with_torch, pann, root, clips, size)
        ours, theirs = (whole - begin) / (options.batches * size), other / clips
        rows.append([number, f"{1 / ours[0]:.2f}", f"{1 / theirs[0]:.2f}"])
        rows[-1] += [f"{x:.2f}" for x in (theirs[0] / ours[0], ours[1], theirs[1])]
        ratios.append(theirs / ours)
    clock, processor = (statistics.median(column) for column in zip(*ratios, strict=True))
    header = ["round", "ergl_jax, clips/s", "PyTorch, clips/s", "ratio"]
    header += ["ergl_jax, CPU s per clip", "PyTorch, CPU s per clip"]
    print(harness.table(header, rows))
    print(f"median ratio by the clock {clock:.2f}, by CPU seconds {processor:.2f}")
    print(f"probabilities differ by {np.abs(found - expected).max():.1e} at most")


if __name__ == "__main__":
    harness.start(main)
