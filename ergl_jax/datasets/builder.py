"""The one TFDS builder: a corpus goes in, log-mel features lie on disk. Only this file knows TFDS.

A dataset's directory is named by a hash of everything that decides its content, so a changed
manifest or front end builds a new one and an unchanged one is opened as it is. TFDS builds in a
directory of its own beside it and renames that at the end: a dataset is whole or absent.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import absl.logging
import numpy as np
import tensorflow_datasets as tfds
import tqdm

from ergl_jax import audio
from ergl_jax.audio import segments
from ergl_jax.datasets import gcs_cache
from ergl_jax.datasets.manifest import SPLITS, Clip, Corpus
from ergl_jax.errors import InputError
from ergl_jax.files import is_remote, make_directory, user_path

BATCH = 16  # waveforms to one call of log_mel; the last batch is padded, so it compiles once
ROWS_PER_SHARD = 1000  # about 256 MB of 10 s clips
FEATURES = "features.json"
FAILURES = "failures.csv"  # written last: a directory without it is no finished dataset

tfds.disable_progress_bar()  # its bars count splits and shards; ours counts clips


def prepare(
    corpus: Corpus,
    *,
    data_dir: str | os.PathLike,
    front_end: audio.FrontEnd,
    clip_seconds: float,
    pad: str,
    long: str,
    strict: bool = False,
) -> SceneDataset:
    """Builds the features of a corpus under `data_dir`, or opens them if they were built before.

    Args:
      corpus: the clips; a clip whose `load` raises InputError is left out and listed.
      data_dir: where datasets are kept, `<data_dir>/ergl_scenes/<hash>/1.0.0`; one of gs://... is
        copied to this machine (see gcs_cache.py).
      front_end: the log-mel spectrogram to make.
      clip_seconds: duration of a row.
      pad: "zero" or "repeat", what fills a shorter recording.
      long: "crop" keeps the centre of a longer recording; "windows" makes consecutive rows of
        it, `<clip>#0`, `<clip>#1`..., with the clip's labels and group.
      strict: raise at the first clip that can't be decoded.

    Raises:
      InputError: no clip at all, an argument out of range, a split that loses all its clips, or
        any clip under `strict`.
    """
    if not corpus.clips:
        raise InputError(f"{corpus.name}: no clips")
    segments.check(front_end, clip_seconds, pad, long)
    named = user_path(data_dir, "data_dir")
    data_dir = gcs_cache.directory() if is_remote(named) else make_directory(named, "data_dir")
    with _no_tfds_warnings():
        builder = ErglScenes(corpus, data_dir, front_end, float(clip_seconds), pad, long, strict)
    if is_remote(named):
        local = Path(builder.data_path)
        remote = named / local.relative_to(data_dir)
        if not local.exists() and not gcs_cache.fetch(remote, local, FAILURES):
            _build(builder)
        if not (remote / FAILURES).exists():  # made here, now or by a run that was stopped
            gcs_cache.store(local, remote, FAILURES)
    else:
        _build(builder)
    # A new name or licence for the same content doesn't ask for new features. `pad` is part of the
    # content, but datasets of before don't say it.
    dataset = dataclasses.replace(
        load(builder.data_path), name=corpus.name, licence=corpus.licence, pad=pad
    )
    if dataset.failures:
        if strict:
            reason = dataset.failures[0][1]
            raise InputError(f"{reason} (found earlier; delete {dataset.path} to retry)")
        count = f"{len(dataset.failures)} of {len(corpus.clips)} clips"
        _say(f"{count} could not be prepared: {dataset.path / FAILURES}")
    return dataset


def _build(builder: ErglScenes) -> None:
    """Makes a dataset, unless it is there."""
    with tempfile.TemporaryDirectory() as downloads:  # TFDS wants one; nothing is downloaded
        try:
            builder.download_and_prepare(download_dir=downloads)
        except OSError:
            if not builder.data_path.exists():  # else another process built the same meanwhile
                raise


def load(path: str | os.PathLike) -> SceneDataset:
    """Opens a prepared dataset by its directory; InputError if there is none."""
    path = Path(path)
    if not (path / FAILURES).is_file() or not (path / "dataset_info.json").is_file():
        raise InputError(f"{path}: not a prepared dataset; data_prep/prepare_dataset.py makes one")
    _check_features(path / FEATURES)
    builder = tfds.builder_from_directory(path)
    metadata = builder.info.metadata
    with open(path / FAILURES, newline="", encoding="utf-8") as file:
        failures = [(row["name"], row["reason"]) for row in csv.DictReader(file)]
    return SceneDataset(
        path=path,
        name=metadata["name"],
        scenes=tuple(metadata["scenes"]),
        events=tuple(metadata["events"]),
        front_end=audio.FrontEnd(**metadata["front_end"]),
        clip_seconds=metadata["clip_seconds"],
        pad=metadata.get("pad", "unknown"),
        licence=metadata["licence"],
        fingerprint=metadata["fingerprint"],
        sizes={s: builder.info.splits[s].num_examples for s in SPLITS if s in builder.info.splits},
        class_sizes=metadata["class_sizes"],
        failures=failures,
    )


def _check_features(path: Path) -> None:
    """InputError unless TFDS itself has the classes that the file names: it would import others."""
    try:
        nodes = [json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is missing or damaged: delete its directory") from error
    while nodes:
        node = nodes.pop()
        named = [node[key] for key in ("pythonClassName", "type") if key in node]
        for name in named:
            if not str(name).startswith("tensorflow_datasets.core.features."):
                raise InputError(f"{path}: {name} is no feature of TFDS: delete its directory")
        nodes += [each for each in node.values() if isinstance(each, dict)]


@dataclasses.dataclass(frozen=True)
class SceneDataset:
    """A prepared dataset on disk."""

    path: Path
    name: str
    scenes: tuple[str, ...]
    events: tuple[str, ...]
    front_end: audio.FrontEnd
    clip_seconds: float
    pad: str  # how shorter recordings were filled: "zero", "repeat"
    licence: str
    fingerprint: str  # hex; a hash of everything that decides the content
    sizes: dict[str, int]  # rows of each split that has any
    class_sizes: dict[str, list[int]]  # rows of each scene, by split
    failures: list[tuple[str, str]]  # clips left out: name, reason

    def split(self, name: str) -> SceneSplit:
        """The rows of "train", "validation" or "test"; InputError if the dataset has none."""
        if name not in self.sizes:
            raise InputError(f"{self.path}: no {name!r} split; it has {', '.join(self.sizes)}")
        return SceneSplit(self._builder.as_data_source(split=name))

    @functools.cached_property
    def _builder(self) -> tfds.core.DatasetBuilder:
        # Once: TFDS keeps each that was ever made.
        return tfds.builder_from_directory(self.path)


class SceneSplit:
    """Random access to the rows of one split, in the order of the corpus."""

    def __init__(self, source):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict:
        """log_mel (F, M) float32, scene int32, events (E,) float32, name and group str."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        row = self._source[index]
        return row | {
            "scene": np.int32(row["scene"]),
            "name": row["name"].decode(),
            "group": row["group"].decode(),
        }

    def arrays(self) -> dict:
        """All rows: log_mel (N, F, M), scene (N,), events (N, E); lists name and group."""
        first, count = self[0], len(self)
        log_mel = np.empty((count, *first["log_mel"].shape), np.float32)
        scene = np.empty(count, np.int32)
        events = np.empty((count, *first["events"].shape), np.float32)
        names, groups = [], []
        for i in range(count):
            row = self[i]
            log_mel[i], scene[i], events[i] = row["log_mel"], row["scene"], row["events"]
            names.append(row["name"])
            groups.append(row["group"])
        return dict(log_mel=log_mel, scene=scene, events=events, name=names, group=groups)


class ErglScenes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes log_mel (F, M), scene, events (E,), name and group of each clip as array records."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # where TFDS looks for the checksums of downloads; there are none

    def __init__(self, corpus, data_dir, front_end, clip_seconds, pad, long, strict):
        self._corpus = corpus
        self._front_end = front_end
        self._clip_seconds = clip_seconds
        self._pad, self._long, self._strict = pad, long, strict
        self._fingerprint = _fingerprint(corpus, front_end, clip_seconds, pad, long)
        self._failures: list[tuple[str, str]] = []
        self._class_sizes: dict[str, list[int]] = {}
        config = tfds.core.BuilderConfig(name=self._fingerprint[:16], version=str(self.VERSION))
        super().__init__(data_dir=data_dir, config=config, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        mel_shape = (self._front_end.num_frames(self._clip_seconds), self._front_end.n_mels)
        tensor = tfds.features.Tensor
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    # As bytes: five times quicker to write than a list of floats.
                    "log_mel": tensor(shape=mel_shape, dtype=np.float32, encoding="bytes"),
                    "scene": np.int64,
                    "events": tensor(shape=(len(self._corpus.events),), dtype=np.float32),
                    "name": tfds.features.Text(),
                    "group": tfds.features.Text(),
                }
            ),
            metadata=tfds.core.MetadataDict(
                name=self._corpus.name,
                scenes=self._corpus.scenes,
                events=self._corpus.events,
                front_end=self._front_end.numbers(),
                clip_seconds=self._clip_seconds,
                pad=self._pad,
                licence=self._corpus.licence,
                fingerprint=self._fingerprint,
                class_sizes=self._class_sizes,
            ),
            disable_shuffling=True,
        )

    def _download_and_prepare(self, dl_manager, download_config) -> None:
        # TFDS's own writer keeps a split in memory, and beyond 1 GB needs TensorFlow to spill it.
        # This one writes row by row, where its info says: `data_dir`, unfinished at this point.
        info = self._info()
        writer = tfds.core.SequentialWriter(
            info, max_examples_per_shard=ROWS_PER_SHARD, file_format="array_record"
        )
        with tqdm.tqdm(desc="features", total=len(self._corpus.clips), unit="clip") as self._bar:
            for split, batches in self._split_generators(dl_manager).items():
                writer.initialize_splits([split])
                for rows in batches:
                    writer.add_examples({split: rows})
        writer.close_all()
        self.info.set_splits(info.splits)
        with open(Path(self.data_dir) / FAILURES, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("name", "reason"), *self._failures])

    def _split_generators(self, dl_manager) -> dict[str, Iterator[list[dict]]]:
        clips = {split: [c for c in self._corpus.clips if c.split == split] for split in SPLITS}
        return {
            split: self._generate_examples(split, clips[split]) for split in SPLITS if clips[split]
        }

    def _generate_examples(self, split: str, clips: list[Clip]) -> Iterator[list[dict]]:
        """Yields the rows of a split, at most BATCH at a time."""
        sizes = self._class_sizes[split] = [0] * len(self._corpus.scenes)
        pieces = self._pieces(clips)
        while batch := list(itertools.islice(pieces, BATCH)):
            waveforms = np.zeros((BATCH, len(batch[0][2])), np.float32)  # (BATCH, L)
            for i, (_, _, waveform) in enumerate(batch):
                waveforms[i] = waveform
            log_mels = np.asarray(audio.log_mel(waveforms, self._front_end))  # (BATCH, F, M)
            for clip, _, _ in batch:
                sizes[clip.scene] += 1
            yield [
                dict(
                    log_mel=log_mel,
                    scene=clip.scene,
                    events=np.asarray(clip.events, np.float32),
                    name=name,
                    group=clip.group,
                )
                for (clip, name, _), log_mel in zip(batch, log_mels, strict=False)
            ]
        if not any(sizes):
            reason = self._failures[-1][1]
            raise InputError(
                f"{self._corpus.name}: none of the {len(clips)} {split} clips can be decoded, "
                f"the last because {reason}"
            )

    def _pieces(self, clips: list[Clip]) -> Iterator[tuple[Clip, str, np.ndarray]]:
        """Yields (clip, row name, waveform (L,)) of what can be decoded; notes what can't."""
        for clip, future in segments.prefetch(self._waveforms, clips):
            try:
                waveforms = future.result()
            except InputError as error:
                if self._strict:
                    raise
                self._failures.append((clip.name, str(error)))
                _say(f"left out: {error}")
                waveforms = []
            self._bar.update()
            for k, waveform in enumerate(waveforms):
                yield clip, clip.name if len(waveforms) == 1 else f"{clip.name}#{k}", waveform

    def _waveforms(self, clip: Clip) -> list[np.ndarray]:
        """A clip's recording as rows (L,) of the dataset's length."""
        length = self._front_end.num_samples(self._clip_seconds)
        waveform = clip.load(self._front_end.sample_rate, self._front_end.channel)
        rows = segments.segment(waveform, length, pad=self._pad, long=self._long)
        return [row for _, row in rows]

    # TFDS prints here that it downloads. It doesn't.
    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass


def _fingerprint(corpus: Corpus, front_end, clip_seconds, pad, long) -> str:
    """Hashes everything that decides a dataset's content."""
    recipe = [corpus.fingerprint, corpus.scenes, corpus.events]
    recipe += [front_end.numbers(), clip_seconds, pad, long]
    digest = hashlib.sha256(json.dumps(recipe).encode())
    for clip in corpus.clips:
        digest.update(json.dumps([clip.name, clip.scene, clip.split, clip.group]).encode())
        digest.update(np.asarray(clip.events, np.float32).tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _no_tfds_warnings():
    """TFDS warns of each configuration that isn't a class attribute; ours is a hash."""
    verbosity = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        yield
    finally:
        absl.logging.set_verbosity(verbosity)


def _say(line: str) -> None:
    tqdm.tqdm.write(line, file=sys.stderr)
