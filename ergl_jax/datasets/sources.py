"""Where clips come from: the corpus that a `config.data` names, prepared."""

from pathlib import Path

from ergl_jax.audio import get_front_end
from ergl_jax.config import DataConfig
from ergl_jax.datasets import builder, manifest, splits, synthetic, tut2018
from ergl_jax.errors import InputError
from ergl_jax.files import user_path


def corpus(config: DataConfig) -> manifest.Corpus:
    """The clips of a `config.data` (commented in configs/ergl.py), with its validation split."""
    if config.source == "tut2018":
        clips = tut2018.corpus(tut2018_root(config), config.events_file or None)
    elif config.source == "synthetic":
        clips = synthetic.corpus(
            seed=config.corpus_seed,
            train_clips_per_scene=config.train_clips_per_scene,
            test_clips_per_scene=config.test_clips_per_scene,
            clip_seconds=config.clip_seconds,
        )
    else:
        clips = manifest.read_manifest(
            config.manifest,
            events_file=config.events_file or None,
            test_folds=config.test_folds,
            validation_folds=config.validation_folds,
            licence=config.licence,
        )
    return splits.hold_out_groups(clips, config.validation_fraction, config.validation_seed)


def tut2018_root(config: DataConfig) -> Path:
    """Where the recordings of TUT 2018 are, for a `config.data` of that source."""
    return user_path(config.root or user_path(config.data_dir) / "tut2018")


def check_training_clips(config: DataConfig, dataset: builder.SceneDataset) -> None:
    """InputError unless every scene of the dataset of a `config.data` has training clips."""
    counts = dataset.class_sizes.get("train", [0] * len(dataset.scenes))
    if missing := [scene for scene, count in zip(dataset.scenes, counts, strict=True) if not count]:
        raise InputError(
            f"{config.manifest or dataset.name}: scene {missing[0]!r} has no training clip that "
            "could be prepared: mark rows as train, spell it the same in all rows, or remove its "
            "rows"
        )


def open_dataset(config: DataConfig, *, strict: bool = False) -> builder.SceneDataset:
    """The prepared dataset of a `config.data`; its features are computed the first time.

    `strict` raises at the first clip that can't be decoded.
    """
    return builder.prepare(
        corpus(config),
        data_dir=config.data_dir,
        front_end=get_front_end(config.front_end),
        clip_seconds=config.clip_seconds,
        pad=config.pad,
        long=config.long,
        strict=strict,
    )
