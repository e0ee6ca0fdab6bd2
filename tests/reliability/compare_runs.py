"""Compares the work directories of two runs that must be equal."""

import json
import struct

import jax
import numpy as np
import orbax.checkpoint as ocp
from tensorboardX.proto import event_pb2

CLOCK = ("clips_per_second", "seconds", "training_seconds", "checksum")


def without_clock(values):
    return {name: value for name, value in values.items() if name not in CLOCK}


def lines(workdir):
    """metrics.jsonl without times."""
    text = (workdir / "metrics.jsonl").read_text(encoding="utf-8")
    return [without_clock(json.loads(line)) for line in text.splitlines()]


def checkpoints(workdir):
    """latest/3 -> (its arrays, its progress without times)."""
    found = {}
    for path in sorted((workdir / "checkpoints").glob("*/*")):
        with ocp.PyTreeCheckpointer() as reader:
            arrays = jax.tree_util.tree_leaves_with_path(reader.restore(path / "state"))
        (text,) = [file.read_text() for file in (path / "progress").glob("metadata")]
        found["/".join(path.parts[-2:])] = (
            {jax.tree_util.keystr(name): np.asarray(array) for name, array in arrays},
            without_clock(json.loads(text)),
        )
    return found


def board(workdir):
    """(epoch, tag) -> value as TensorBoard shows it: a start hides later epochs of older files.

    A file's last record may be truncated. An epoch that is shown twice is an error.
    """
    shown = {}
    for path in sorted((workdir / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime):
        data = path.read_bytes()
        while len(data) >= 12:  # length, its checksum, an event, its checksum
            (length,) = struct.unpack("<Q", data[:8])
            if len(data) < 16 + length:
                break
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            if event.session_log.status == event_pb2.SessionLog.START:
                shown = {key: value for key, value in shown.items() if key[0] < event.step}
            for value in event.summary.value:
                assert (event.step, value.tag) not in shown
                if value.tag not in CLOCK:
                    shown[event.step, value.tag] = value.simple_value
            data = data[16 + length :]
    return shown


def assert_same(one, other):
    """Bit for bit: checkpoints, metrics, bundle and results of two work directories."""
    assert lines(one) == lines(other)
    assert board(one) == board(other)
    mine, theirs = checkpoints(one), checkpoints(other)
    assert mine.keys() == theirs.keys() and len(mine) >= 2
    for name, (arrays, progress) in mine.items():
        assert progress == theirs[name][1]
        assert arrays.keys() == theirs[name][0].keys() and len(arrays) > 20
        for key, array in arrays.items():
            assert array.tobytes() == theirs[name][0][key].tobytes(), (name, key)
    for name in ("bundle/model.safetensors", "bundle/config.json", "predictions.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    results = [
        without_clock(json.loads((workdir / "results.json").read_text()))
        for workdir in (one, other)
    ]
    assert results[0] == results[1]
    names = [
        sorted(
            str(path.relative_to(workdir))
            for path in workdir.rglob("*")
            if not {"tensorboard", "state"} & set(path.relative_to(workdir).parts)
        )
        for workdir in (one, other)
    ]
    assert names[0] == names[1]  # no unfinished files
