"""The TFDS builder: turns a corpus into log-mel features on disk. Only this file uses TFDS.

A dataset's directory is named by a hash of everything that determines its content: a changed
manifest or front end builds a new one, and an unchanged one is opened as it is. TFDS builds in a
temporary directory and renames it at the end, so a dataset is complete or absent.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import absl.logging
import numpy as np
import tensorflow_datasets as tfds

from ergl_jax import audio, locks, progress
from ergl_jax.audio import segments
from ergl_jax.audio.levels import is_silent, note_silence
from ergl_jax.datasets import event_times, gcs_cache
from ergl_jax.datasets.manifest import SPLITS, Clip, Corpus
from ergl_jax.datasets.notes import Notes, read_pairs
from ergl_jax.datasets.scene_split import SceneSplit
from ergl_jax.datasets.tables import write_table
from ergl_jax.errors import InputError
from ergl_jax.files import is_remote, make_directory, reading, user_path

BATCH = 16  # waveforms per call of log_mel; the last batch is padded, so it compiles once
ROWS_PER_SHARD = 1000  # about 256 MB of 10 s clips
FEATURES = "features.json"
NOTES = "notes.csv"  # older datasets have none
FAILURES = "failures.csv"  # written last: a directory without it is incomplete

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
    wait: bool = True,
) -> SceneDataset:
    """Builds the features of a corpus under `data_dir`, or opens them if they exist.

    Args:
      corpus: the clips; one whose `load` raises InputError is left out and listed in failures.csv.
        If their `sounds` are known, rows have the activity of the events too.
      data_dir: the parent of `ergl_scenes/<hash>/1.0.0`; one of gs://... is copied to this machine
        (see gcs_cache.py).
      front_end: the log-mel spectrogram to compute.
      clip_seconds: duration of a row.
      pad: "zero" or "repeat", how a shorter recording is filled.
      long: "crop" takes the centre of a longer recording; "windows" cuts it into consecutive rows,
        `<clip>#0`, `<clip>#1`..., with the clip's labels and group.
      strict: raise at the first clip that can't be used.
      wait: wait for another process that builds the same dataset, instead of raising InputError.

    Raises:
      InputError: no clip, a wrong `clip_seconds`, `pad` or `long`, a split without any clip that
        can be used, or under `strict` any clip that can't.
    """
    if not corpus.clips:
        raise ValueError(f"{corpus.name}: no clips")
    segments.check(front_end, clip_seconds, pad, long)
    named = user_path(data_dir, "data_dir")
    local_dir = gcs_cache.directory() if is_remote(named) else make_directory(named, "data_dir")
    verbosity = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS warns that the configuration is new
    try:
        builder = ErglScenes(corpus, local_dir, front_end, float(clip_seconds), pad, long, strict)
    finally:
        absl.logging.set_verbosity(verbosity)
    local = Path(builder.data_path)
    remote = named / local.relative_to(local_dir)
    in_bucket = is_remote(named)
    if not (in_bucket and (local.exists() or gcs_cache.download(remote, local, FAILURES))):
        _build(builder, wait=wait)
    if in_bucket and not (remote / FAILURES).exists():  # built now, or by an interrupted run
        gcs_cache.upload(local, remote, FAILURES)
    # Name and licence do not change the features, so they may differ from the stored ones. `pad`
    # does, but old datasets do not store it.
    dataset = dataclasses.replace(load(local), name=corpus.name, licence=corpus.licence, pad=pad)
    if dataset.failures and strict:
        reason = dataset.failures[0][1]
        raise InputError(f"{reason} (found earlier; delete {dataset.path} to retry)")
    if dataset.notes:
        progress.say(f"{len(dataset.notes)} notes on recordings: {dataset.path / NOTES}")
    if dataset.failures:
        count = f"{len(dataset.failures)} of {len(corpus.clips)} clips"
        progress.say(f"{count} could not be prepared: {dataset.path / FAILURES}")
    return dataset


def _build(builder: ErglScenes, *, wait: bool) -> None:
    """Builds a dataset unless it exists."""
    if builder.data_path.exists():
        return
    lock = Path(builder.data_path.parent).with_suffix(".lock")
    remedy = "name another data_dir"
    with (
        locks.hold(lock, f"{builder.data_path}", remedy, wait=wait),
        tempfile.TemporaryDirectory() as downloads,  # TFDS wants one; nothing is downloaded
    ):
        try:
            builder.download_and_prepare(download_dir=downloads)  # unless it was built meanwhile
        except OSError:
            if not builder.data_path.exists():  # else by a process that took this one for dead
                raise


def load(path: str | os.PathLike) -> SceneDataset:
    """Opens a prepared dataset by its directory; InputError if there is none."""
    path = Path(path)
    if not (path / FAILURES).is_file() or not (path / "dataset_info.json").is_file():
        raise InputError(f"{path}: not a prepared dataset; data_prep/prepare_dataset.py makes one")
    _check_features(path / FEATURES)
    info = tfds.builder_from_directory(path).info
    fields = {"pad": "unknown", **info.metadata}
    fields |= {name: tuple(fields[name]) for name in ("scenes", "events")}
    fields["front_end"] = audio.FrontEnd(**fields["front_end"])
    sizes = {split: info.splits[split].num_examples for split in SPLITS if split in info.splits}
    fields |= {"failures": read_pairs(path / FAILURES), "notes": read_pairs(path / NOTES)}
    return SceneDataset(path=path, sizes=sizes, **fields)


def _check_features(path: Path) -> None:
    """InputError if the file names classes outside TFDS, since TFDS would import them."""
    with reading(path, "delete the directory to build it again"):
        nodes = [json.loads(path.read_text(encoding="utf-8"))]
        while nodes:
            node = nodes.pop()
            for name in (node[key] for key in ("pythonClassName", "type") if key in node):
                if not str(name).startswith("tensorflow_datasets.core.features."):
                    raise ValueError(f"{name} is not a feature of TFDS")
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
    fingerprint: str  # hex; a hash of everything that determines the content
    sizes: dict[str, int]  # rows of each split that has any
    class_sizes: dict[str, list[int]]  # rows of each scene, by split
    failures: list[tuple[str, str]]  # clips left out: name, reason
    notes: list[tuple[str, str]]  # on clips that were not: name, note

    def split(self, name: str) -> SceneSplit:
        """The rows of "train", "validation" or "test"; InputError if the dataset has none."""
        if name not in self.sizes:
            raise InputError(f"{self.path}: no {name!r} split; it has {', '.join(self.sizes)}")
        return SceneSplit(self._builder.as_data_source(split=name))

    @functools.cached_property  # TFDS keeps every builder that was made in memory
    def _builder(self) -> tfds.core.DatasetBuilder:
        return tfds.builder_from_directory(self.path)


class ErglScenes(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Writes log_mel (F, M), scene, events (E,), name and group of each clip as array records.

    Also activity (F, E), if the clips have `sounds`.
    """

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # where TFDS looks for the checksums of downloads; there are none

    def __init__(self, corpus, data_dir, front_end, clip_seconds, pad, long, strict):
        self._corpus, self._front_end, self._clip_seconds = corpus, front_end, clip_seconds
        self._pad, self._long, self._strict = pad, long, strict
        self._fingerprint = _fingerprint(corpus, front_end, clip_seconds, pad, long)
        self._has_sounds = any(clip.sounds is not None for clip in corpus.clips)
        self._failures: list[tuple[str, str]] = []
        self._notes = Notes()
        self._class_sizes: dict[str, list[int]] = {}
        config = tfds.core.BuilderConfig(name=self._fingerprint[:16], version=str(self.VERSION))
        super().__init__(data_dir=data_dir, config=config, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        shape = self._front_end.shape(self._clip_seconds)
        tensor, events = tfds.features.Tensor, len(self._corpus.events)
        # As bytes: five times quicker to write than a list of floats.
        features = {
            "log_mel": tensor(shape=shape, dtype=np.float32, encoding="bytes"),
            "scene": np.int64,
            "events": tensor(shape=(events,), dtype=np.float32),
            "name": tfds.features.Text(),
            "group": tfds.features.Text(),
        }
        if self._has_sounds:
            by_frame = (shape[0], events)
            features["activity"] = tensor(shape=by_frame, dtype=np.float32, encoding="bytes")
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
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
        # TFDS's own writer keeps a split in memory, and beyond 1 GB needs TensorFlow. This one
        # writes row by row to the info's data_dir, which is a temporary directory here.
        info = self._info()
        writer = tfds.core.SequentialWriter(
            info, max_examples_per_shard=ROWS_PER_SHARD, file_format="array_record"
        )
        with progress.bar(desc="features", total=len(self._corpus.clips), unit="clip") as self._bar:
            for split, batches in self._split_generators(dl_manager).items():
                writer.initialize_splits([split])
                for rows in batches:
                    writer.add_examples({split: rows})
        writer.close_all()
        self.info.set_splits(info.splits)
        write_table(Path(self.data_dir) / NOTES, ("name", "note"), self._notes.rows)
        write_table(Path(self.data_dir) / FAILURES, ("name", "reason"), self._failures)

    def _split_generators(self, dl_manager) -> dict[str, Iterator[list[dict]]]:
        clips = {split: [c for c in self._corpus.clips if c.split == split] for split in SPLITS}
        return {split: self._generate_examples(split, c) for split, c in clips.items() if c}

    def _generate_examples(self, split: str, clips: list[Clip]) -> Iterator[list[dict]]:
        """Yields the rows of a split, at most BATCH at a time."""
        sizes = self._class_sizes[split] = [0] * len(self._corpus.scenes)
        length = self._front_end.num_samples(self._clip_seconds)
        rows = self._rows(clips, length)
        while batch := list(itertools.islice(rows, BATCH)):
            waveforms = np.zeros((BATCH, length), np.float32)
            for i, row in enumerate(batch):
                waveforms[i] = row.pop("waveform")
                sizes[row["scene"]] += 1
            log_mels = np.asarray(audio.log_mel(waveforms, self._front_end))  # (BATCH, F, M)
            yield [row | {"log_mel": x} for row, x in zip(batch, log_mels, strict=False)]
        if not any(sizes):
            raise InputError(
                f"{self._corpus.name}: none of the {len(clips)} {split} clips can be used, "
                f"the last because {self._failures[-1][1]}"
            )

    def _rows(self, clips: list[Clip], length: int) -> Iterator[dict]:
        """Yields the rows of clips that can be used, each with its waveform (L,)."""
        front_end = self._front_end

        def decode(clip: Clip) -> tuple[list[dict], list[str], int]:
            notes: list[str] = []
            waveform = clip.load(front_end.sample_rate, front_end.channel, notes)
            rows = []
            for start, window in segments.segment(waveform, length, pad=self._pad, long=self._long):
                rows.append({"waveform": window})
                if self._has_sounds:
                    rows[-1]["activity"] = event_times.activity(
                        clip,
                        len(self._corpus.events),
                        front_end,
                        start=start,
                        recorded=len(waveform),
                        length=length,
                        pad=self._pad,
                    )
            notes += note_silence([is_silent(row["waveform"]) for row in rows])
            return rows, notes, len(waveform)

        longer = longest = 0
        for clip, future in segments.prefetch(decode, clips):
            try:
                rows, notes, recorded = future.result()
            except InputError as error:
                if self._strict:
                    raise
                self._failures.append((clip.name, str(error)))
                progress.say(f"left out: {error}")
                rows, notes, recorded = [], [], 0
            self._notes.add(clip.name, notes)
            longer += recorded > 1.01 * length
            longest = max(longest, recorded)
            self._bar.update()
            events = np.asarray(clip.events, np.float32)
            for k, row in enumerate(rows):
                name = clip.name if len(rows) == 1 else f"{clip.name}#{k}"
                labels = dict(scene=clip.scene, events=events, name=name, group=clip.group)
                yield labels | row
        if longer and self._long == "crop":
            seconds, most = (n / front_end.sample_rate for n in (length, longest))
            progress.say(
                f"{longer} of {len(clips)} recordings are longer than a clip (up to {most:.1f} s): "
                f"only the middle {seconds:g} s of each is used (data.long='crop')"
            )

    # TFDS prints here that it downloads. It doesn't.
    _log_download_bytes = _log_download_done = lambda self: None


def _fingerprint(corpus: Corpus, front_end, clip_seconds, pad, long) -> str:
    """A hash of everything that determines a dataset's content, hex."""
    recipe = [corpus.fingerprint, corpus.scenes, corpus.events]
    recipe += [front_end.numbers(), clip_seconds, pad, long]
    digest = hashlib.sha256(json.dumps(recipe).encode())
    for clip in corpus.clips:
        digest.update(json.dumps([clip.name, clip.scene, clip.split, clip.group]).encode())
        digest.update(np.asarray(clip.events, np.float32).tobytes())
        if clip.sounds is not None:
            digest.update(json.dumps([sound[:3] for sound in clip.sounds]).encode())
    return digest.hexdigest()
