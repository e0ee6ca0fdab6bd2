"""Metrics on disk: JSON lines and TensorBoard's own files."""

import json
import struct

import pytest
from tensorboardX.proto import event_pb2

from ergl_jax.training.writers import MetricWriter


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def board(workdir):
    """(tag, step, value) of every scalar, in the order of writing."""
    found = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:  # length, its checksum, an event, its checksum
            (length,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            data = data[16 + length :]
    return found


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
