"""Metrics of a run, once per epoch, as JSON lines and for TensorBoard."""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tqdm import tqdm

from ergl_jax import progress
from ergl_jax.errors import InputError
from ergl_jax.files import atomic_write, is_remote, make_directory, read_bytes, upload
from ergl_jax.training import hosts, workdirs


class MetricWriter:
    """Appends to `workdir/metrics.jsonl` and `workdir/tensorboard`.

    Epochs after `done` are those of a run that was stopped before it saved a checkpoint. Their
    lines are dropped, in TensorBoard too, and they are trained and written again. `write` returns
    when everything is on disk, and raises InputError on a full one. Objects in a bucket can't be
    appended to: for a gs:// `workdir` both are written locally and uploaded after each epoch.
    """

    def __init__(self, workdir: Path, *, done: int):
        lines = [line for line in _lines(workdir) if _epoch(line) in range(1, done + 1)]
        self._remote: Path | None = None
        self._temporary = contextlib.ExitStack()
        if is_remote(workdir):
            self._remote = workdir
            workdir = Path(self._temporary.enter_context(tempfile.TemporaryDirectory()))
        self._path = workdir / "metrics.jsonl"
        with atomic_write(self._path) as tmp_path:
            tmp_path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        directory = make_directory(workdir / "tensorboard", "directory")
        with workdirs.writing(directory):
            # The process id, so that a run started within the same second has another file.
            self._board = EventsWriter(str(directory / "events"), f".{os.getpid()}")
            # TensorBoard then hides this epoch and later ones of older files.
            self._add(done + 1, session_log=SessionLog(status=SessionLog.START))
            self._board.flush()

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        with workdirs.writing(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": epoch, **values}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with workdirs.writing(self._path.with_name("tensorboard")):
            scalars = [Summary.Value(tag=tag, simple_value=x) for tag, x in values.items()]
            self._add(epoch, summary=Summary(value=scalars))
            self._board.flush()
        if self._remote:
            local = self._path.parent
            for path in (self._path, *local.glob("tensorboard/*")):
                upload(path, self._remote / path.relative_to(local))

    def _add(self, step: int, **content: object) -> None:
        self._board.write_event(Event(wall_time=time.time(), step=step, **content))

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of a full disk, which `write` has raised
            self._board.close()
        self._temporary.close()


def progress_bar(done: int, epochs: int) -> tqdm:
    """Iterates over the epochs after `done`; only the main process shows it."""
    return progress.bar(
        range(done + 1, epochs + 1),
        initial=done,
        total=epochs,
        desc="epochs",
        unit="epoch",
        disable=not hosts.is_main_process(),
    )


def summary(values: dict[str, float]) -> str:
    """An epoch's metrics in the progress bar."""
    parts = [f"loss {values['loss']:.3f}"]
    parts += [f"scene {values['scene_loss']:.3f}", f"event {values['event_loss']:.4f}"]
    parts += [f"train {100 * values['accuracy']:.1f} %"]
    if "validation_class_mean_accuracy" in values:
        parts += [f"validation {100 * values['validation_class_mean_accuracy']:.1f} %"]
    return ", ".join([*parts, f"{values['clips_per_second']:.0f} clips/s"])


def check_no_logs(workdir: Path) -> None:
    """Raises InputError if an epoch of this run was once saved; for a run without checkpoints.

    Each is saved before the next one's line in metrics.jsonl, the last before results.json.
    """
    if (workdir / "results.json").exists() or max(map(_epoch, _lines(workdir)), default=0) > 1:
        raise InputError(
            f"{workdir} contains training logs but {workdir}/checkpoints no checkpoint to resume "
            "from: restore it, or start a new run with --fresh"
        )


def _lines(workdir: Path) -> list[str]:
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    content = read_bytes(path, "move it away or choose another --workdir")
    return content.decode("utf-8", "replace").splitlines()


def _epoch(line: str) -> int:
    """The epoch of a line; 0 for a line that a stopped run left incomplete."""
    try:
        return int(json.loads(line)["epoch"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return 0
