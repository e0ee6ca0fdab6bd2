"""Metrics on disk: JSON lines and TensorBoard's own files."""

import errno
import json
import os
import struct

import pytest
from tensorboardX.proto import event_pb2

from ergl_jax.errors import InputError
from ergl_jax.training.metric_writer import MetricWriter, epochs_written


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def events(path):
    data = path.read_bytes()
    while data:  # length, its checksum, an event, its checksum
        (length,) = struct.unpack("<Q", data[:8])
        yield event_pb2.Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def board(workdir):
    """(tag, step, value) of every scalar, in the order of writing."""
    return [
        (value.tag, event.step, value.simple_value)
        for path in sorted((workdir / "tensorboard").iterdir())
        for event in events(path)
        for value in event.summary.value
    ]


def write(workdir, *epochs, done=0):
    writer = MetricWriter(workdir, done=done)
    for epoch in epochs:
        writer.write(epoch, {"loss": 1 / epoch, "validation_accuracy": epoch / 8})
    writer.close()


def test_a_line_and_scalars_an_epoch(tmp_path):
    write(tmp_path, 1, 2)
    assert lines(tmp_path) == [
        {"epoch": 1, "loss": 1.0, "validation_accuracy": 0.125},
        {"epoch": 2, "loss": 0.5, "validation_accuracy": 0.25},
    ]
    assert board(tmp_path) == [
        ("loss", 1, 1.0),
        ("validation_accuracy", 1, 0.125),
        ("loss", 2, 0.5),
        ("validation_accuracy", 2, 0.25),
    ]


def test_a_line_is_on_disk_at_once(tmp_path):
    writer = MetricWriter(tmp_path, done=0)
    writer.write(1, {"loss": 2.0})
    assert lines(tmp_path) == [{"epoch": 1, "loss": 2.0}]
    writer.close()


def test_a_resumed_run_goes_on_after_what_was_saved(tmp_path):
    write(tmp_path, 1, 2)
    write(tmp_path, 3, done=2)
    assert [line["epoch"] for line in lines(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("rest", ["", '{"epoch": 4, "lo', '{"epoch": 4, "loss": 0.25}', "\n"])
def test_lines_of_epochs_that_were_not_saved_are_dropped(tmp_path, rest):
    write(tmp_path, 1, 2, 3)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write(rest)
    write(tmp_path, 2, 3, done=1)
    assert [line["epoch"] for line in lines(tmp_path)] == [1, 2, 3]
    assert [path.name for path in tmp_path.iterdir() if "writing" in path.name] == []


def test_a_start_within_the_same_second_hides_what_was_not_saved(tmp_path, monkeypatch):
    """Another process's file beside the first one's, with TensorBoard's mark to purge by."""
    monkeypatch.setattr("time.time", lambda: 1e9)
    write(tmp_path, 1, 2, 3)
    monkeypatch.setattr(os, "getpid", lambda: 4)
    write(tmp_path, 2, 3, done=1)
    files = sorted((tmp_path / "tensorboard").iterdir())
    assert len(files) == 2
    marks = [
        event.step
        for path in files
        for event in events(path)
        if event.session_log.status == event_pb2.SessionLog.START
    ]
    assert sorted(marks) == [1, 2]


def test_a_full_disk_is_a_line(tmp_path, monkeypatch):
    writer = MetricWriter(tmp_path, done=0)
    writer.write(1, {"loss": 2.0})

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="metrics.jsonl can't be written: No space left on"):
            writer.write(2, {"loss": 1.0})
    writer.close()
    write(tmp_path, 2, done=1)
    assert [line["epoch"] for line in lines(tmp_path)] == [1, 2]


def test_the_last_epoch_that_was_told(tmp_path):
    assert epochs_written(tmp_path) == 0
    write(tmp_path, 1, 2)
    assert epochs_written(tmp_path) == 2
