"""A configuration's model, optimiser and steps."""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from ergl_jax import registry
from ergl_jax.audio import get_front_end
from ergl_jax.config import Config
from ergl_jax.datasets import batches
from ergl_jax.systems import SYSTEMS
from ergl_jax.training import optimizer, step
from ergl_jax.training.augmentation import make_augment


class Built(NamedTuple):
    """The result of `build`."""

    model: nn.Module
    adamw: optax.GradientTransformation
    schedule: optax.Schedule  # the learning rate by the number of updates
    trainer: step.Trainer


def build(
    config: Config,
    *,
    scene: np.ndarray,
    events: np.ndarray,
    num_scenes: int,
    devices: Sequence[jax.Device] | None = None,
) -> Built:
    """Builds all that training steps need; runs nothing on a device.

    Args:
      config: checked.
      scene: (N,) of the training clips.
      events: (N, n) of the training clips, only those to learn; n is 0 for a system without events.
      num_scenes: of the dataset.
      devices: as `step.Trainer` takes them.

    Raises InputError for a batch larger than the training split.
    """
    first = batches.train_indices(len(scene), config.train.batch_size, seed=0, epoch=0)
    length = {"steps_per_epoch": len(first), "epochs": config.train.epochs}
    frozen = SYSTEMS[config.model.name].pretrained if config.model.frozen else ()
    adamw = optimizer.adamw(config.optimizer, **length, frozen=frozen)
    model = registry.build(
        config.model,
        num_scenes=num_scenes,
        num_events=events.shape[1],
        axis_name=step.AXIS,
        frame_seconds=get_front_end(config.data.front_end).frame_seconds,
    )
    loss = registry.make_loss(
        config.train.loss,
        scene=scene,
        events=events,
        num_scenes=num_scenes,
        threshold=config.data.event_threshold,
    )
    trainer = step.Trainer(
        model,
        adamw,
        make_augment(config.augment),
        num_scenes=num_scenes,
        seed=config.seed,
        loss=loss,
        skip_nonfinite=config.train.skip_nonfinite,
        devices=devices,
    )
    return Built(model, adamw, optimizer.learning_rate(config.optimizer, **length), trainer)
