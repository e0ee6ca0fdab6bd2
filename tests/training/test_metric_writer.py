"""Metrics on disk: JSON lines and TensorBoard's own files."""

import errno
import json
import os
import struct

import pytest
from tensorboardX.proto import event_pb2

from ergl_jax.errors import InputError
from ergl_jax.training.metric_writer import MetricWriter


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def events(workdir):
    """All of TensorBoard's events, by file name."""
    for path in sorted((workdir / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:  # length, its checksum, an event, its checksum
            (length,) = struct.unpack("<Q", data[:8])
            yield event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def write(workdir, *epochs, done=0):
    writer = MetricWriter(workdir, done=done)
    for epoch in epochs:
        writer.write(epoch, {"loss": 1 / epoch, "validation_accuracy": epoch / 8})
        assert lines(workdir)[-1]["epoch"] == epoch  # on disk at once
    writer.close()


def test_a_line_and_scalars_per_epoch(tmp_path):
    write(tmp_path, 1, 2)
    assert lines(tmp_path) == [
        {"epoch": 1, "loss": 1.0, "validation_accuracy": 0.125},
        {"epoch": 2, "loss": 0.5, "validation_accuracy": 0.25},
    ]
    scalars = [(e.step, x.tag, x.simple_value) for e in events(tmp_path) for x in e.summary.value]
    assert scalars == [
        (line["epoch"], name, line[name]) for line in lines(tmp_path) for name in list(line)[1:]
    ]


@pytest.mark.parametrize("rest", ["", '{"epoch": 4, "lo', '{"epoch": 4, "loss": 0.25}'])
def test_lines_of_epochs_that_were_not_saved_are_dropped(tmp_path, rest):
    write(tmp_path, 1, 2, 3)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write(rest)
    write(tmp_path, 2, 3, done=1)
    assert [line["epoch"] for line in lines(tmp_path)] == [1, 2, 3]
    assert [path.name for path in tmp_path.iterdir() if "writing" in path.name] == []


def test_a_restart_within_the_same_second_hides_what_was_not_saved(tmp_path, monkeypatch):
    """Another process writes another file, and marks the epoch from which TensorBoard purges."""
    monkeypatch.setattr("time.time", lambda: 1e9)
    write(tmp_path, 1, 2, 3)
    monkeypatch.setattr(os, "getpid", lambda: 4)
    write(tmp_path, 2, 3, done=1)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    start = event_pb2.SessionLog.START
    assert sorted(e.step for e in events(tmp_path) if e.session_log.status == start) == [1, 2]


def test_a_full_disk_is_an_input_error(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = MetricWriter(tmp_path, done=0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"metrics.jsonl can't be written: No space left on"):
            writer.write(1, {"loss": 1.0})
    writer.close()
