"""Latest and best checkpoints of a run. The only file that knows Orbax."""

import dataclasses
from pathlib import Path

import orbax.checkpoint as ocp

from ergl_jax.training.steps import TrainState


@dataclasses.dataclass
class Progress:
    """How far a run is: what is kept beside its state."""

    epoch: int = 0  # epochs done
    best_epoch: int = 0  # 0: none yet
    best_accuracy: float = -1.0  # class-wise mean accuracy on validation
    seconds: float = 0.0  # of training, over all its restarts
    source: str = ""  # what its first weights came from, if not from chance


class Checkpoints:
    """`directory/latest` and `directory/best`, each holding one checkpoint, by epoch."""

    def __init__(self, directory: Path):
        def manager(name: str) -> ocp.CheckpointManager:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=1, create=True, enable_async_checkpointing=False
            )
            return ocp.CheckpointManager((directory / name).absolute(), options=options)

        self._managers = {name: manager(name) for name in ("latest", "best")}

    def save(self, name: str, state: TrainState, progress: Progress) -> None:
        """Writes numpy arrays of an unreplicated state under the number of `progress.epoch`."""
        manager = self._managers[name]
        manager.save(
            progress.epoch,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
            ),
        )
        manager.wait_until_finished()

    def restore(self, name: str, like: TrainState) -> tuple[TrainState, Progress] | None:
        """The state, shaped as `like`, and its progress; None where nothing was saved yet."""
        manager = self._managers[name]
        epoch = manager.latest_step()
        if epoch is None:
            return None
        restored = manager.restore(
            epoch,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(like), progress=ocp.args.JsonRestore()
            ),
        )
        return restored["state"], Progress(**restored["progress"])

    def close(self) -> None:
        for manager in self._managers.values():
            manager.close()
