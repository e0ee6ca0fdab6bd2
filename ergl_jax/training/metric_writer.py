"""A run's metrics, a line an epoch: JSON lines and TensorBoard."""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from ergl_jax.errors import InputError
from ergl_jax.files import atomic_write, is_remote, make_directory, upload


class MetricWriter:
    """Appends to `workdir/metrics.jsonl` and `workdir/tensorboard`.

    Lines of epochs after `done` are of a run that was stopped before it could save: they are
    dropped, in TensorBoard too, and those epochs are written anew. All is on disk when `write`
    returns, by no thread of its own. Raises InputError where the disk is full. A bucket appends to
    no file: for a `workdir` there both are written on this machine, and copied each time.
    """

    def __init__(self, workdir: Path, *, done: int):
        self._path = workdir / "metrics.jsonl"
        kept = [line for line in _lines(self._path) if _epoch(line) in range(1, done + 1)]
        self._remote, self._temporary = None, contextlib.ExitStack()
        if is_remote(workdir):
            here = self._temporary.enter_context(tempfile.TemporaryDirectory())
            self._remote, workdir = workdir, Path(here)
            self._path = workdir / "metrics.jsonl"
        with atomic_write(self._path) as beside:
            beside.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        directory = make_directory(workdir / "tensorboard", "directory")
        with _room(directory):
            # Its own number: a run that starts within the same second writes another file.
            self._board = EventsWriter(str(directory / "events"), f".{os.getpid()}")
            # Readers then hide what older files have of this epoch and later.
            self._add(done + 1, session_log=SessionLog(status=SessionLog.START))
            self._board.flush()

    def write(self, epoch: int, values: dict[str, float]) -> None:
        with _room(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": epoch, **values}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with _room(self._path.with_name("tensorboard")):
            scalars = [Summary.Value(tag=tag, simple_value=x) for tag, x in values.items()]
            self._add(epoch, summary=Summary(value=scalars))
            self._board.flush()
        if self._remote:
            here = self._path.parent
            for path in (self._path, *here.glob("tensorboard/*")):
                upload(path, self._remote / path.relative_to(here))

    def _add(self, step: int, **content) -> None:
        self._board.write_event(Event(wall_time=time.time(), step=step, **content))

    def close(self) -> None:
        with contextlib.suppress(OSError):  # on a full disk, which `write` has told
            self._board.close()
        self._temporary.close()


def epochs_written(workdir: Path) -> int:
    """The last epoch that metrics.jsonl tells of; 0 where there is none."""
    return max(map(_epoch, _lines(workdir / "metrics.jsonl")), default=0)


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    try:
        return path.read_bytes().decode("utf-8", "replace").splitlines()
    except OSError as error:
        raise InputError(
            f"{path} can't be read: {error.strerror}; move it away or choose another --workdir"
        ) from error


def _epoch(line: str) -> int:
    """The epoch of a line; 0 for one that a stopped run left unfinished."""
    try:
        return int(json.loads(line)["epoch"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return 0


@contextlib.contextmanager
def _room(path: Path) -> Iterator[None]:
    """An InputError where `path` can't be written to."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} can't be written: {error.strerror}; make space, and the same command goes on "
            "after the last checkpoint"
        ) from error
