"""Latest and best checkpoints of a run. The only file that imports Orbax."""

import dataclasses
import errno
import json
import shutil
import sys
import zlib
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from ergl_jax.errors import InputError, postponed_interrupt
from ergl_jax.files import is_remote, make_directory
from ergl_jax.training import hosts, workdirs
from ergl_jax.training.step import TrainState

KEPT = 2  # of each kind, in case the last one is damaged
REMEDIES = {
    "latest": "train in a new work directory with --fresh",
    "best": "move that directory away, and the last epoch is tested instead",
}


@dataclasses.dataclass
class Progress:
    """How far a run has come; saved with its state."""

    epoch: int = 0  # finished epochs
    best_epoch: int = 0  # 0: none yet
    best_accuracy: float = -1.0  # class-wise mean accuracy on validation
    seconds: float = 0.0  # of training, over all restarts
    skipped: int = 0  # updates that were skipped because they were not finite
    source: str = ""  # where the initial weights came from; "" if random
    # What the state was trained on, as `workdirs.check_data` takes it; {}: by an older version
    data: dict = dataclasses.field(default_factory=dict)


class Checkpoints:
    """`directory/latest` and `directory/best`, each with the last KEPT checkpoints, by epoch.

    A checkpoint is written under a temporary name and then renamed.
    """

    def __init__(self, directory: Path):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEPT,
            create=True,
            cleanup_tmp_directories=True,  # of a run that was killed while writing
            enable_async_checkpointing=False,
        )
        self._managers = {}
        for name in ("latest", "best"):
            path = make_directory(directory / name, "checkpoint directory")
            path = path if is_remote(path) else path.absolute()
            manager = self._managers[name] = ocp.CheckpointManager(path, options=options)
            for epoch in sorted(manager.all_steps())[:-KEPT]:  # if killed while deleting
                manager.delete(epoch)

    def save(self, name: str, state: TrainState, progress: Progress) -> None:
        """Saves an unreplicated state of numpy arrays as checkpoint `progress.epoch`.

        Replaces checkpoints of this and later epochs, which a run that resumed from an earlier one
        reaches again. Raises InputError on a full disk; earlier checkpoints are kept.
        """
        manager = self._managers[name]
        metadata = dataclasses.asdict(progress)
        path = manager.directory / str(progress.epoch)
        with postponed_interrupt(), workdirs.writing(path):  # Orbax's threads would be torn
            _check_space(manager.directory, state)
            for epoch in manager.all_steps():
                if epoch >= progress.epoch:
                    manager.delete(epoch)
            manager.save(
                progress.epoch,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    progress=ocp.args.JsonSave(metadata | {"checksum": _checksum(state, metadata)}),
                ),
            )
            manager.wait_until_finished()

    def restore(self, name: str, template: TrainState) -> tuple[TrainState, Progress] | None:
        """The last state, with the shapes of `template`, and its progress; None if none is saved.

        A damaged checkpoint is reported on stderr, and the one before it is taken. Raises
        InputError if all are damaged.
        """
        manager = self._managers[name]
        epochs = sorted(manager.all_steps(), reverse=True)
        for epoch in epochs:
            restored = None
            try:
                restored = _read(manager, epoch, template)
            except Exception as error:  # JSON, tensorstore and Orbax raise many kinds
                path, reason = manager.directory / str(epoch), workdirs.reason(error)
                print(f"{path} is damaged and skipped: {reason}", file=sys.stderr, flush=True)
            if not hosts.any_process(restored is None):
                return restored
        if not epochs:
            return None
        raise InputError(f"no checkpoint in {manager.directory} can be read: {REMEDIES[name]}")

    def close(self) -> None:
        for manager in self._managers.values():
            manager.close()


def _read(
    manager: ocp.CheckpointManager, epoch: int, template: TrainState
) -> tuple[TrainState, Progress]:
    """Reads and verifies a checkpoint. Raises whatever a damaged one causes."""
    # Each array alone first: Orbax reads them together and logs a traceback for each damaged one.
    path = manager.directory / str(epoch) / "state"
    json.loads((path / "_METADATA").read_text())
    store = {"driver": "ocdbt", "base": f"{path}/" if is_remote(path) else f"file://{path}/"}
    keys = tensorstore.KvStore.open(store).result().list().result()
    arrays = [key.decode() for key in keys if key.endswith(b"/.zarray")]
    if len(arrays) != len(jax.tree.leaves(template)):
        raise ValueError(f"{len(arrays)} of {len(jax.tree.leaves(template))} arrays are present")
    for name in arrays:
        array = store | {"path": name.removesuffix(".zarray")}
        tensorstore.open({"driver": "zarr", "kvstore": array}).result().read().result()
    restored = manager.restore(
        epoch,
        args=ocp.args.Composite(
            state=ocp.args.StandardRestore(template), progress=ocp.args.JsonRestore()
        ),
    )
    state, metadata = restored["state"], restored["progress"]
    if metadata.pop("checksum") != _checksum(state, metadata):
        raise ValueError("its checksum differs from the saved one")
    return state, Progress(**metadata)


def _check_space(directory: Path, state: TrainState) -> None:
    """Raises OSError if a checkpoint doesn't fit; Orbax's threads would print tracebacks."""
    if is_remote(directory):
        return
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    if (free := shutil.disk_usage(directory).free) < needed:
        text = f"{free / 1e6:.1f} MB are free and a checkpoint takes {needed / 1e6:.1f} MB"
        raise OSError(errno.ENOSPC, text)


def _checksum(state: TrainState, metadata: dict) -> int:
    """A CRC-32 of everything in a checkpoint."""
    total = zlib.crc32(json.dumps(metadata, sort_keys=True).encode())
    for leaf in jax.tree.leaves(state):
        total = zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data, total)
    return total
