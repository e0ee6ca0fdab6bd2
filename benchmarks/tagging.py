"""Seconds to tag an hour of audio with Cnn14, files to CSV, against PANNs' inference in PyTorch.

    python benchmarks/tagging.py --root runs/tagging
    python benchmarks/tagging.py --root runs/tagging --minutes 1 --width_divisor 32 --rounds 1

Both get the same stereo WAV files of 10 s at 44.1 kHz and the same random weights, and run in turn:
`ergl tag --csv`, and Cnn14 in PyTorch as panns_inference runs it: torchlibrosa's front end on one
file at a time, read by librosa at 32 kHz. Loading and warm-up are not timed. The second command is
a quick check of the benchmark itself.
"""

import argparse
import contextlib
import csv
import os
import statistics
import sys
import time
from pathlib import Path

import harness
import librosa
import numpy as np
import soundfile
import torch
from torch.nn import functional
from torchlibrosa.stft import LogmelFilterBank, Spectrogram

from ergl_jax.cli import tag
from ergl_jax.inference.classify import Model

sys.path[:0] = [str(harness.REPOSITORY / name) for name in ("tests", "data_prep")]
import panns_checkpoint  # noqa: E402
import torch_panns  # noqa: E402

RATE, SECONDS = 44100, 10
DIFFERENT = 12  # files; the others are links to these
TOLERANCE = 1e-4  # of probabilities


def write_recordings(folder: Path, count: int) -> list[Path]:
    """Writes `count` recordings of noise that comes and goes, into an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.wav"):
        path.unlink()
    paths = [folder / f"{i:05}.wav" for i in range(count)]
    envelope = np.sin(np.linspace(0, 20, SECONDS * RATE))[:, None] ** 2
    for i, path in enumerate(paths):
        if i >= DIFFERENT:
            os.link(paths[i % DIFFERENT], path)
            continue
        noise = np.random.default_rng(i).standard_normal((SECONDS * RATE, 2))
        soundfile.write(path, 0.3 * noise * envelope ** (i % 3) / 4, RATE)
    return paths


def make_torch(width_divisor: int) -> torch_panns.PANN:
    """Cnn14 of random weights, with torchlibrosa's front end at 32 kHz."""
    pann = torch_panns.PANN("cnn14", "panns_32k", width_divisor)
    mel = {"sr": 32000, "n_fft": 1024, "n_mels": 64, "fmin": 50, "fmax": 14000}
    pann.spectrogram_extractor = Spectrogram(n_fft=1024, hop_length=320)
    pann.logmel_extractor = LogmelFilterBank(**mel, ref=1.0, amin=1e-10, top_db=None)
    return pann.eval()


@torch.no_grad()
def probabilities(pann: torch_panns.PANN, waveform: torch.Tensor) -> torch.Tensor:
    """(B, L) -> (B, 527); in place where PANNs' code is."""
    x = pann.logmel_extractor(pann.spectrogram_extractor(waveform))  # (B, 1, F, M)
    x = pann.bn0(x.transpose(1, 3)).transpose(1, 3)
    for number in range(1, 7):
        block = getattr(pann, f"conv_block{number}")
        x = functional.relu_(block.bn1(block.conv1(x)))
        x = functional.relu_(block.bn2(block.conv2(x)))
        if number < 6:
            x = functional.avg_pool2d(x, 2)
    x = x.mean(dim=3)
    x = x.amax(dim=2) + x.mean(dim=2)
    return pann.fc_audioset(functional.relu_(pann.fc1(x))).sigmoid()


def with_torch(pann: torch_panns.PANN, events: tuple[str, ...], paths: list[Path], out: Path):
    with open(out, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file", *(f"event:{name}" for name in events)])
        for path in paths:
            waveform, _ = librosa.load(path, sr=32000, mono=True)
            (found,) = probabilities(pann, torch.from_numpy(waveform[None])).numpy()
            rows.writerow([path, *(f"{p:.6f}" for p in found)])


def with_jax(model: Model, folder: Path, out: Path) -> None:
    parser = argparse.ArgumentParser()
    tag.add_arguments(parser)
    args = parser.parse_args([str(folder), "--bundle=unused", "--csv"])
    with open(out, "w", newline="", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        tag.tag(model, args)


def read(path: Path, events: tuple[str, ...]) -> np.ndarray:
    """(N, 527) of a CSV."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(row[f"event:{name}"]) for name in events] for row in rows])


def main() -> None:
    parser = harness.parser(__doc__, rounds=3)
    parser.add_argument("--root", type=Path, default=Path("runs/tagging"))
    parser.add_argument("--minutes", type=harness.positive, default=60, help="of audio")
    parser.add_argument("--width_divisor", type=harness.positive, default=1, help="of Cnn14")
    options = parser.parse_args()
    harness.use_cpu(1, training=False)
    root = options.root.resolve()
    paths = write_recordings(root / "recordings", options.minutes * 60 // SECONDS)
    pann = make_torch(options.width_divisor)
    checkpoint = torch_panns.save(pann, root / "random.pth")
    model = Model(panns_checkpoint.port(checkpoint).bundle)
    warm = write_recordings(root / "warm", 9)  # both of the sizes of a batch
    calls = {
        "ergl tag": lambda which, files: with_jax(model, files[0].parent, root / which),
        "PyTorch": lambda which, files: with_torch(pann, model.events, files, root / which),
    }
    for name, call in calls.items():
        call(f"warm {name}.csv", warm)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.rounds):
        for name, call in calls.items():
            time.sleep(harness.PAUSE)
            begin = time.perf_counter()
            call(f"{name}.csv", paths)
            times[name].append(time.perf_counter() - begin)
    rows = [
        [number, f"{ours:.1f}", f"{theirs:.1f}", f"{theirs / ours:.2f}"]
        for number, (ours, theirs) in enumerate(zip(*times.values(), strict=True), 1)
    ]
    print(harness.table(["round", "ergl tag, s", "PyTorch, s", "ratio"], rows))
    speed = 60 * options.minutes / statistics.median(times["ergl tag"])
    print(f"PyTorch over ergl tag: {harness.ratio(times['PyTorch'], times['ergl tag'])}")
    print(f"ergl tag is {speed:.0f} times as fast as the audio plays")
    found, expected = (read(root / f"{name}.csv", model.events) for name in calls)
    difference = np.abs(found - expected).max()
    print(f"probabilities differ by {difference:.1e} at most, and span {np.ptp(expected):.2f}")
    if not difference <= TOLERANCE:
        raise harness.InputError(f"probabilities differ by more than {TOLERANCE:g}")


if __name__ == "__main__":
    harness.start(main)
