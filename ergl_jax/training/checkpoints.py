"""Latest and best checkpoints of a run. The only file that knows Orbax."""

import dataclasses
import json
import shutil
import sys
import zlib
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from ergl_jax.errors import InputError
from ergl_jax.files import is_remote
from ergl_jax.training import hosts
from ergl_jax.training.step import TrainState

KEPT = 2  # of each kind: the last one may turn out damaged
INSTEAD = {
    "latest": "start anew beside this run with --fresh",
    "best": "move that directory away, and the last epoch is tested in its place",
}


@dataclasses.dataclass
class Progress:
    """How far a run is: what is kept beside its state."""

    epoch: int = 0  # epochs done
    best_epoch: int = 0  # 0: none yet
    best_accuracy: float = -1.0  # class-wise mean accuracy on validation
    seconds: float = 0.0  # of training, over all its restarts
    skipped: int = 0  # updates that were not finite and left out
    source: str = ""  # what its first weights came from, if not from chance


class Checkpoints:
    """`directory/latest` and `directory/best`, each with the last KEPT checkpoints, by epoch.

    One that is being written has another name until it is whole.
    """

    def __init__(self, directory: Path):
        def manager(name: str) -> ocp.CheckpointManager:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=KEPT,
                create=True,
                cleanup_tmp_directories=True,  # of a run that was killed as it wrote
                enable_async_checkpointing=False,
            )
            path = directory / name
            path = path if is_remote(path) else path.absolute()
            return ocp.CheckpointManager(path, options=options)

        for name in ("latest", "best"):
            if (directory / name).exists() and not (directory / name).is_dir():
                raise InputError(
                    f"{directory / name} is a file where checkpoints are to lie: move it away"
                )
        self._managers = {name: manager(name) for name in ("latest", "best")}
        for each in self._managers.values():  # a run may have been killed as it deleted
            for epoch in sorted(each.all_steps())[:-KEPT]:
                each.delete(epoch)

    def save(self, name: str, state: TrainState, progress: Progress) -> None:
        """Writes numpy arrays of an unreplicated state under the number of `progress.epoch`.

        Checkpoints of this epoch and later ones are replaced: a run that went on from an earlier
        one comes by again. Raises InputError where they can't be written; the last one stays.
        """
        manager = self._managers[name]
        told = dataclasses.asdict(progress)
        _check_room(manager.directory, state)
        try:
            for epoch in manager.all_steps():
                if epoch >= progress.epoch:
                    manager.delete(epoch)
            manager.save(
                progress.epoch,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    progress=ocp.args.JsonSave({**told, "checksum": _checksum(state, told)}),
                ),
            )
            manager.wait_until_finished()
        except (OSError, ValueError) as error:  # ValueError: by tensorstore
            raise InputError(
                f"{manager.directory / str(progress.epoch)} can't be written: {_reason(error)}; "
                "make space, and the same command goes on after the last checkpoint"
            ) from error

    def restore(self, name: str, like: TrainState) -> tuple[TrainState, Progress] | None:
        """The last state, shaped as `like`, and its progress; None where nothing was saved yet.

        A damaged one is named on stderr and the one before is taken. Raises InputError where there
        are some and none can be read.
        """
        manager = self._managers[name]
        epochs = sorted(manager.all_steps(), reverse=True)
        for epoch in epochs:
            found = None
            try:
                found = _read(manager, epoch, like)
            except Exception as error:  # JSON, tensorstore and Orbax have many
                path, reason = manager.directory / str(epoch), _reason(error)
                print(f"{path} is damaged and passed over: {reason}", file=sys.stderr, flush=True)
            if not hosts.any_process(found is None):
                return found
        if not epochs:
            return None
        raise InputError(f"no checkpoint in {manager.directory} can be read: {INSTEAD[name]}")

    def close(self) -> None:
        for manager in self._managers.values():
            manager.close()


def _read(manager: ocp.CheckpointManager, epoch: int, like: TrainState):
    """A checkpoint whose bytes are those that were written; any exception where they aren't."""
    # First one by one: Orbax reads arrays together, and each damaged one would write a traceback.
    path = manager.directory / str(epoch) / "state"
    json.loads((path / "_METADATA").read_text())
    base = f"{path}/" if is_remote(path) else f"file://{path}/"
    store = {"driver": "ocdbt", "base": base}
    keys = tensorstore.KvStore.open(store).result().list().result()
    arrays = [key.decode() for key in keys if key.endswith(b"/.zarray")]
    if len(arrays) != len(jax.tree.leaves(like)):
        raise ValueError(f"{len(arrays)} arrays of {len(jax.tree.leaves(like))} are there")
    for name in arrays:
        array = store | {"path": name.removesuffix(".zarray")}
        tensorstore.open({"driver": "zarr", "kvstore": array}).result().read().result()
    restored = manager.restore(
        epoch,
        args=ocp.args.Composite(
            state=ocp.args.StandardRestore(like), progress=ocp.args.JsonRestore()
        ),
    )
    state, told = restored["state"], restored["progress"]
    if told.pop("checksum") != _checksum(state, told):
        raise ValueError("its content is not what was saved")
    return state, Progress(**told)


def _check_room(directory: Path, state: TrainState) -> None:
    """InputError where a checkpoint doesn't fit: Orbax's threads would write tracebacks."""
    if is_remote(directory):
        return
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    if (free := shutil.disk_usage(directory).free) < needed:
        raise InputError(
            f"{directory} can't be written to: {free / 1e6:.1f} MB are free and a checkpoint takes "
            f"{needed / 1e6:.1f}; make space, and the same command goes on after the last one"
        )


def _checksum(state: TrainState, told: dict) -> int:
    """A CRC-32 of all that a checkpoint holds."""
    total = zlib.crc32(json.dumps(told, sort_keys=True).encode())
    for leaf in jax.tree.leaves(state):
        total = zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8), total)
    return total


def _reason(error: Exception) -> str:
    """An error in part of a line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    first = (str(error).splitlines() or [""])[0]
    return f"{first[:150]} ({type(error).__name__})"
