"""Configurations that train in seconds, for tests of whole runs."""

from ergl_jax.config import Config


def synthetic(file):
    return Config.from_dict(file.get_config("synthetic").to_dict())


def small(file, directory, **fields):
    """A system on 20 clips of 2 s, as narrow as can be, for an epoch."""
    return synthetic(file).replace(
        **{
            "data.data_dir": str(directory / "data"),
            "data.clip_seconds": 2.0,
            "data.train_clips_per_scene": 4,
            "data.test_clips_per_scene": 1,
            "data.validation_fraction": 0.25,
            "model.encoder.width_divisor": 32,
            "train.batch_size": 10,
            "train.epochs": 1,
            "optimizer.warmup_epochs": 0.0,
            "augment.time_masks": 0,
            "augment.mel_masks": 0,
            "augment.roll": False,
        }
        | fields
    )
