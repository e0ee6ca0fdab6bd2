"""Where clips come from: the corpus that a `config.data` names, prepared."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ergl_jax.audio import get_front_end, segment
from ergl_jax.config import DataConfig
from ergl_jax.datasets import builder, event_times, manifest, splits, synthetic, tut2018
from ergl_jax.datasets.batches import check_batch_size
from ergl_jax.datasets.events import check_events
from ergl_jax.errors import InputError, warn
from ergl_jax.files import user_path


def corpus(config: DataConfig) -> manifest.Corpus:
    """The clips of a `config.data` (commented in configs/ergl.py), with its validation split."""
    if config.source == "tut2018":
        clips = tut2018.corpus(tut2018_root(config), config.events_file or None)
    elif config.source in synthetic.CORPORA:
        clips = synthetic.corpus(
            config.source,
            seed=config.corpus_seed,
            train_clips_per_scene=config.train_clips_per_scene,
            test_clips_per_scene=config.test_clips_per_scene,
            clip_seconds=config.clip_seconds,
            times=config.annotations == event_times.TRUTH,
        )
    else:
        clips = manifest.read_manifest(
            config.manifest,
            events_file=config.events_file or None,
            test_folds=config.test_folds,
            validation_folds=config.validation_folds,
            licence=config.licence,
        )
        if config.annotations:
            clips = event_times.annotate(clips, config.annotations, config.manifest)
    return splits.hold_out_groups(clips, config.validation_fraction, config.validation_seed)


def tut2018_root(config: DataConfig) -> Path:
    """Where the recordings of TUT 2018 are, for a `config.data` of that source."""
    return user_path(config.root or user_path(config.data_dir) / "tut2018")


def check(
    config: DataConfig,
    found: manifest.Corpus,
    *,
    batch_size: int,
    events: bool,
    listed: Sequence[str] = (),
) -> None:
    """InputError for a corpus that can't be trained on; no recording is opened.

    Args:
      config: the `config.data` that names it.
      found: the corpus.
      batch_size: clips per step.
      events: whether the model learns events.
      listed: what `events.read_list` found in `config.events`.
    """
    counts = Counter(clip.scene for clip in found.clips if clip.split == "train")
    _check_scenes(config, found.scenes, [counts[i] for i in range(len(found.scenes))])
    if config.long == "crop":  # else a recording may become several clips
        check_batch_size(counts.total(), batch_size)
    if events:
        check_events(found.events, count=config.num_events, listed=listed, source=config.events)


def check_prepared(config: DataConfig, dataset: builder.SceneDataset) -> None:
    """InputError unless every scene of a prepared dataset still has training clips."""
    counts = dataset.class_sizes.get("train", [0] * len(dataset.scenes))
    remedy = "replace its recordings, or remove its rows"
    _check_scenes(config, dataset.scenes, counts, " that could be used", remedy)


def _check_scenes(
    config: DataConfig,
    scenes: Sequence[str],
    counts: Sequence[int],
    which: str = "",
    remedy: str = "mark rows as train, spell it the same in all rows, or remove its rows",
) -> None:
    if missing := [scene for scene, count in zip(scenes, counts, strict=True) if not count]:
        problem = f"scene {missing[0]!r} has no training clip{which}"
        raise InputError(f"{config.manifest or config.source}: {problem}: {remedy}")


def warn_of_one_scene(data: str, counts: Mapping[str, Iterable[int]]) -> None:
    """Warns of splits whose clips are all of one scene.

    Args:
      data: the name of the data in the warning.
      counts: clips of each scene, by split.
    """
    if single := [split for split, each in counts.items() if sum(n > 0 for n in each) == 1]:
        warn(
            f"{data}: all {', '.join(single)} clips are of one scene. An accuracy of 1 then means "
            "nothing; add clips of other scenes"
        )


def warn_of_labels(config: DataConfig, found: manifest.Corpus, pooling: str) -> None:
    """Warns of labels of presence where `model.pooling` expects shares of the clip, or reverse."""
    labels = np.concatenate([clip.events for clip in found.clips if clip.split == "train"])
    name, shares = config.manifest or config.source, config.source in synthetic.CORPORA
    if pooling == "mean" and not shares and np.isin(labels, (0, 1)).all():
        warn(
            f"{name}: all event labels are 0 or 1, so they seem to say whether an event sounds; "
            "model.pooling='mean' learns the share of the clip for which it does: set "
            "model.pooling=linear"
        )
    elif pooling == "linear" and shares:
        warn(
            f"{name}: event labels are shares of the clip; model.pooling='linear' learns whether "
            "an event sounds: set model.pooling=mean"
        )


def open_dataset(
    config: DataConfig,
    found: manifest.Corpus | None = None,
    *,
    strict: bool = False,
    wait: bool = True,
) -> builder.SceneDataset:
    """The prepared dataset of a `config.data`; its features are computed the first time.

    `found` is its corpus, by default read here; `strict` and `wait` are those of `builder.prepare`.
    """
    return builder.prepare(
        found or corpus(config),
        data_dir=config.data_dir,
        front_end=get_front_end(config.front_end),
        clip_seconds=config.clip_seconds,
        pad=config.pad,
        long=config.long,
        strict=strict,
        wait=wait,
    )


def listener(config: DataConfig) -> Callable[[str], tuple[np.ndarray, int]]:
    """A function that reads the sound of a row of the dataset of a `config.data`.

    It maps the row's name to its samples (L,), without padding, and their rate in Hz. It raises
    InputError if the recording can't be decoded.
    """
    front_end = get_front_end(config.front_end)
    length = front_end.num_samples(config.clip_seconds)
    clips = {clip.name: clip for clip in corpus(config).clips}

    def listen(name: str) -> tuple[np.ndarray, int]:
        recording, _, number = (name, "", "0") if name in clips else name.rpartition("#")
        waveform = clips[recording].load(front_end.sample_rate, front_end.channel, [])
        rows = segment(waveform, length, pad=config.pad, long=config.long)
        _, row = next(itertools.islice(rows, int(number), None))
        return row[: len(waveform)], front_end.sample_rate

    return listen
