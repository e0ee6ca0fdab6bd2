"""Seconds of audio decoded per second, by format.

    python benchmarks/decoding.py

Files of stereo noise at 44.1 kHz (Opus 48 kHz), read to mono at the rate of a front end by
`audio.stream_audio`, in turn: WAV, FLAC and OGG by libsndfile, MP3, M4A and WebM by FFmpeg. For
comparison, libsndfile alone, without mixing or resampling.
"""

import functools
import statistics
import sys
import tempfile
from pathlib import Path

import harness
import numpy as np
import soundfile

from ergl_jax.audio import stream_audio

sys.path.insert(0, str(harness.REPOSITORY / "tests"))
from made_recordings import encode  # noqa: E402

LIBSNDFILE = ("wav", "flac", "ogg")
CODECS = {"mp3": "libmp3lame", "m4a": "aac", "webm": "libopus"}


def write(directory: Path, suffix: str, seconds: int) -> Path:
    path, rate = directory / f"noise.{suffix}", 48000 if suffix == "webm" else 44100
    samples = 0.1 * np.random.default_rng(0).standard_normal((seconds * rate, 2))
    if suffix in LIBSNDFILE:
        with soundfile.SoundFile(path, "w", rate, 2) as file:
            for start in range(0, len(samples), rate):  # libsndfile crashes on minutes of OGG
                file.write(samples[start : start + rate])
    else:
        encode(path, samples, rate, CODECS[suffix])
    return path


def read(path: Path, rate: int) -> None:
    for _ in stream_audio(path, rate):
        pass


def main() -> None:
    parser = harness.parser(__doc__, rounds=7)
    parser.add_argument("--seconds", type=harness.positive, default=120, help="of each file")
    parser.add_argument("--sample_rate", type=harness.positive, default=32000, help="to read at")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        calls = {}
        for suffix in (*LIBSNDFILE, *CODECS):
            path = write(Path(directory), suffix, options.seconds)
            calls[suffix] = functools.partial(read, path, options.sample_rate)
            if suffix in (*LIBSNDFILE, "mp3"):
                alone = functools.partial(soundfile.read, path, dtype="float32")
                calls[f"{suffix}, libsndfile alone"] = alone
        times = harness.time_in_turn(calls, options.rounds)
    base = next(iter(times.values()))
    rows = [
        [name, f"{options.seconds / statistics.median(each):.0f}", harness.ratio(each, base)]
        for name, each in times.items()
    ]
    print(harness.table(["", "seconds decoded per second", "time over the first row's"], rows))


if __name__ == "__main__":
    harness.start(main)
