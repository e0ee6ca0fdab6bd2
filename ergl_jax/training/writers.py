"""A run's metrics, a line an epoch: JSON lines and TensorBoard."""

import json
from pathlib import Path

from tensorboardX import SummaryWriter

from ergl_jax.files import replacing


class MetricWriter:
    """Appends to `workdir/metrics.jsonl` and `workdir/tensorboard`.

    Lines of epochs after `done` are of a run that was stopped before it could save: they are
    dropped, and those epochs are written anew.
    """

    def __init__(self, workdir: Path, *, done: int):
        path = workdir / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if _epoch(line) in range(1, done + 1)]
        with replacing(path) as beside:
            beside.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._lines = open(path, "a", encoding="utf-8")  # noqa: SIM115
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=done + 1)

    def write(self, epoch: int, values: dict[str, float]) -> None:
        self._lines.write(json.dumps({"epoch": epoch, **values}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, epoch)

    def close(self) -> None:
        self._lines.close()
        self._board.close()


def _epoch(line: str) -> int:
    """The epoch of a line; 0 for one that a stopped run left unfinished."""
    try:
        return json.loads(line)["epoch"]
    except ValueError:
        return 0
