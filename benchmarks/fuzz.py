"""Coverage-guided fuzzing of what reads files that others wrote.

    pip install atheris
    python -m benchmarks.fuzz manifest -max_total_time=180
    python -m benchmarks.fuzz labels -max_total_time=180
    python -m benchmarks.fuzz bundle -max_total_time=180
    python -m benchmarks.fuzz workdir -max_total_time=180
    python -m benchmarks.fuzz checkpoint -max_total_time=180

Each input must be read or earn an InputError; any other exception ends the run, with the input in
a file `crash-*`. What follows the target's name goes to libFuzzer: a directory of inputs to begin
with, `-max_total_time`, or a `crash-*` file to run again. The last line that libFuzzer prints has
the executions, `cov` the branches of our code that they reached. Atheris is no dependency.

manifest: a CSV. labels: an .npz of one. bundle: config.json, and after a zero byte the
weights. workdir: the config.json and metrics.jsonl of a run that is to be gone on with.
checkpoint: which of Orbax's files and what becomes of it, by the first two bytes: other content, or
places to change, or to cut it at; whatever can be restored is what was saved.
"""

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["ergl_jax"]):
    from ergl_jax import bundle
    from ergl_jax.datasets import manifest
    from ergl_jax.training import metric_writer, workdirs
    from ergl_jax.training.checkpoints import Checkpoints, Progress
    from ergl_jax.training.step import TrainState

import jax

from configs import test
from ergl_jax import registry
from ergl_jax.audio import FRONT_ENDS
from ergl_jax.errors import InputError

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz"))


def read_manifest(data: bytes) -> None:
    path = FOLDER / "my.csv"
    path.write_bytes(data)
    for folds in ((), ("1",)):
        with contextlib.suppress(InputError):
            manifest.read_manifest(path, test_folds=folds)
    with contextlib.suppress(InputError):
        manifest.read_recordings(path)


def read_labels(data: bytes) -> None:
    (FOLDER / "my.csv").write_text("file,scene,split\na.wav,tram,train\nb.wav,bus,test\n")
    (FOLDER / "labels.npz").write_bytes(data)
    manifest.read_manifest(FOLDER / "my.csv", events_file=FOLDER / "labels.npz")


def read_bundle(data: bytes) -> None:
    config, _, weights = data.partition(b"\0")
    directory = FOLDER / "bundle"
    (directory / bundle.CONFIG).write_bytes(config)
    # Without weights of its own it has those that fit, so that what comes after is reached too.
    (directory / bundle.WEIGHTS).write_bytes(weights or WEIGHTS)
    bundle.load(directory)


def read_workdir(data: bytes) -> None:
    config, _, lines = data.partition(b"\0")
    (FOLDER / "config.json").write_bytes(config)
    with contextlib.suppress(InputError):
        workdirs.check(CONFIG, FOLDER)
    (FOLDER / "metrics.jsonl").write_bytes(lines)
    metric_writer.MetricWriter(FOLDER, done=2).close()
    shutil.rmtree(FOLDER / "tensorboard")


def read_checkpoint(data: bytes) -> None:
    which, how, *edits = data if len(data) > 2 else b"\0\0\0"
    path = sorted(CHECKPOINT)[which % len(CHECKPOINT)]
    content = bytearray(edits if how % 3 == 0 else CHECKPOINT[path])
    for high, low, value in zip(edits[::3], edits[1::3], edits[2::3], strict=False):
        place = (256 * high + low) % max(len(content), 1)
        if how % 3 == 1:
            content[place : place + 1] = bytes([value])
        elif how % 3 == 2:
            del content[place:]
    path.write_bytes(content)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # where it says what it passes over
            state, progress = CHECKPOINTS.restore("latest", STATE)
        assert progress == Progress(1)
        jax.tree.map(np.testing.assert_array_equal, state, STATE)
    finally:
        path.write_bytes(CHECKPOINT[path])


TARGETS = {
    "manifest": read_manifest,
    "labels": read_labels,
    "bundle": read_bundle,
    "workdir": read_workdir,
    "checkpoint": read_checkpoint,
}
CONFIG = test.get_config()
WEIGHTS = b""
STATE = TrainState(
    step=np.array(7, np.int32),
    params={"dense": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}},
    batch_stats={"mean": np.ones(3, np.float32)},
    opt_state=(),
)
CHECKPOINTS = None
CHECKPOINT: dict[Path, bytes] = {}  # its files, whole


def seeds() -> dict[str, list[bytes]]:
    """Good inputs of each target, to begin with."""
    labels = io.BytesIO()
    np.savez(
        labels, clip=np.array(["a", "b"]), events=np.array(["D"]), probabilities=np.ones((2, 1))
    )
    config = _save_bundle()
    line = json.dumps({"epoch": 1, "loss": 0.5}).encode() + b"\n"
    rows = b"file,scene,split,group,event:Dog\na.wav,tram,train,1,0.5\nb.wav,bus,test,2,1\n"
    return {
        "manifest": [rows, rows.replace(b"split", b"fold").replace(b"train", b"1")],
        "labels": [labels.getvalue()],
        "bundle": [config, config + b"\0" + WEIGHTS],
        "workdir": [CONFIG.to_json().encode() + b"\0" + line],
        "checkpoint": _save_checkpoint(),
    }


def _save_bundle() -> bytes:
    """Writes an untrained bundle to FOLDER; returns its config.json."""
    global WEIGHTS
    model = registry.build(CONFIG.model, num_scenes=2, num_events=2)
    found = bundle.Bundle(
        model=CONFIG.model.to_dict(),
        variables=jax.device_get(
            model.init(jax.random.key(0), np.zeros((1, 201, 64)), train=False)
        ),
        scenes=("bus", "tram"),
        events=("Dog", "Rain"),
        front_end=FRONT_ENDS["panns_16k"],
        clip_seconds=2.0,
        pad="zero",
        licence="CC0",
        dataset="none",
    )
    found.save(FOLDER / "bundle")
    WEIGHTS = (FOLDER / "bundle" / bundle.WEIGHTS).read_bytes()
    return (FOLDER / "bundle" / bundle.CONFIG).read_bytes()


def _save_checkpoint() -> list[bytes]:
    """Writes one; returns what leaves each of its files, changes a byte of it, or cuts it."""
    global CHECKPOINTS
    CHECKPOINTS = Checkpoints(FOLDER / "checkpoints")
    CHECKPOINTS.save("latest", STATE, Progress(1))
    for path in (FOLDER / "checkpoints" / "latest").rglob("*"):
        if path.is_file():
            CHECKPOINT[path] = path.read_bytes()
    return [
        bytes([number, how]) + (b"\0\x10\x55" if how else CHECKPOINT[path])
        for number, path in enumerate(sorted(CHECKPOINT))
        for how in range(3)
    ]


def main() -> None:
    name, *rest = sys.argv[1:]
    begin = Path(tempfile.mkdtemp(prefix=f"fuzz_{name}"))
    for number, content in enumerate(seeds()[name]):
        (begin / str(number)).write_bytes(content)

    def one(data: bytes) -> None:
        with contextlib.suppress(InputError):
            TARGETS[name](data)

    if not any(os.path.exists(argument) for argument in rest):
        rest = [str(begin), *rest]
    atheris.Setup([sys.argv[0], "-max_len=60000", *rest], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
