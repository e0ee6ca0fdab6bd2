"""Where clips come from: the corpus that a `config.data` names, prepared."""

from ergl_jax.audio import get_front_end
from ergl_jax.datasets import builder, manifest, splits, synthetic, tut2018
from ergl_jax.errors import InputError
from ergl_jax.files import user_path

SOURCES = ("tut2018", "synthetic", "folder")


def corpus(config) -> manifest.Corpus:
    """The clips of a `config.data` (commented in configs/ergl.py), with its validation split."""
    if config.source == "tut2018":
        root = config.root or user_path(config.data_dir) / "tut2018"
        clips = tut2018.corpus(root, config.events_file or None)
    elif config.source == "synthetic":
        clips = synthetic.corpus(
            seed=config.corpus_seed,
            train_clips_per_scene=config.train_clips_per_scene,
            test_clips_per_scene=config.test_clips_per_scene,
            clip_seconds=config.clip_seconds,
        )
    elif config.source == "folder":
        if not config.manifest:
            raise InputError(
                "data.source=folder needs a manifest: add --config.data.manifest=PATH.csv"
            )
        clips = manifest.read_manifest(
            config.manifest,
            events_file=config.events_file or None,
            test_folds=config.test_folds,
            validation_folds=config.validation_folds,
            licence=config.licence,
        )
    else:
        raise InputError(f"data.source={config.source!r} is not one of: {', '.join(SOURCES)}")
    return splits.hold_out_groups(
        clips, fraction=config.validation_fraction, seed=config.validation_seed
    )


def check_training_clips(config, dataset: builder.SceneDataset) -> None:
    """InputError if the dataset of a `config.data` lacks training clips, or a scene lacks them."""
    if "train" not in dataset.sizes:
        raise InputError(f"dataset {dataset.name!r} has no training clips: mark rows as train")
    for scene, count in zip(dataset.scenes, dataset.class_sizes["train"], strict=True):
        if not count:
            where = config.manifest or f"dataset {dataset.name!r}"
            raise InputError(
                f"{where}: scene {scene!r} has no training clip that could be prepared: spell it "
                "the same in all rows, or remove its rows"
            )


def open_dataset(config) -> builder.SceneDataset:
    """The prepared dataset of a `config.data`; its features are made the first time."""
    return builder.prepare(
        corpus(config),
        data_dir=config.data_dir,
        front_end=get_front_end(config.front_end),
        clip_seconds=config.clip_seconds,
        pad=config.pad,
        long=config.long,
    )
