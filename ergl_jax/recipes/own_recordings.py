"""A training run for a user's own recordings: splits, events and settings that suit them."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import re
import shlex
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ergl_jax.audio import stream_audio
from ergl_jax.bundle import Bundle
from ergl_jax.config import Config
from ergl_jax.datasets.manifest import SPLITS, Clip, Corpus
from ergl_jax.datasets.splits import hold_out_groups
from ergl_jax.datasets.tables import write_table
from ergl_jax.errors import InputError
from ergl_jax.files import atomic_write
from ergl_jax.labels import AUDIOSET
from ergl_jax.recipes import evaluation
from ergl_jax.training import workdirs

HELD_OUT = 0.2  # of each class, for the test split and for the validation split
MEASURED = 50  # recordings whose length is measured
STEPS = 2400  # of training, about: five to ten minutes on two cores
EPOCHS = 15, 120
# The batch size for up to so many training clips.
BATCH_SIZES = ((400, 8), (2000, 16), (10_000, 32), (math.inf, 64))
MAX_SECONDS = 10.0  # of a clip


def split(corpus: Corpus) -> tuple[Corpus, list[str]]:
    """Holds out test and validation clips where there are none, and returns a sentence on each.

    InputError unless there are two classes, each with training clips.
    """
    if len(corpus.scenes) < 2:
        raise InputError(f"{corpus.name}: two classes are needed, found {corpus.scenes[0]!r} alone")
    before = {clip.split for clip in corpus.clips}
    if missing := set(range(len(corpus.scenes))) - _scenes_of(corpus, "train"):
        others = {clip.split for clip in corpus.clips if clip.scene == min(missing)}
        raise InputError(
            f"{corpus.name}: class {corpus.scenes[min(missing)]!r} has no training clip (only "
            f"{' and '.join(sorted(others))}): move some of its recordings to train, or remove the "
            "class"
        )
    new = [name for name in ("validation", "test") if name not in before]
    if before == {"train"}:
        corpus = hold_out_groups(corpus, HELD_OUT, split="test")
    elif "test" in new:
        new.remove("test")
    if "validation" in new:
        share = HELD_OUT / (1 - HELD_OUT) if before == {"train"} else HELD_OUT
        corpus = hold_out_groups(corpus, share, split="validation")
    counts = Counter(clip.split for clip in corpus.clips)
    numbers = ", ".join(f"{counts[name]} {name}" for name in SPLITS if counts[name])
    made = " and ".join(name for name in new if counts[name])
    how = f"; {made} held out of train by group or recording" if made else ""
    lines = [f"{len(corpus.clips)} recordings of {len(corpus.scenes)} classes: {numbers}{how}."]
    for name in ("validation", "test"):
        missing = set(range(len(corpus.scenes))) - _scenes_of(corpus, name)
        if names := ", ".join(corpus.scenes[index] for index in sorted(missing)):
            remedy = ": add recordings in more groups" if name in new else ""
            lines.append(f"No {name} clip of {names}{remedy}.")
    return corpus, lines


def _scenes_of(corpus: Corpus, split: str) -> set[int]:
    return {clip.scene for clip in corpus.clips if clip.split == split}


def with_events(corpus: Corpus, *, forced: bool = False) -> tuple[Corpus, list[str]]:
    """The corpus with its classes as events if they are sounds and it has no events of its own."""
    if corpus.events:
        return corpus, []
    if not (forced or all(map(is_sound, corpus.scenes))):
        return corpus, [
            "No event labels, and some classes are not sounds: training a CNN without events, "
            "which `ergl explain` cannot explain (label events with --tagger BUNDLE, or use the "
            "classes as events with --set model.name=ergl)."
        ]
    rows = np.eye(len(corpus.scenes), dtype=np.float32)
    clips = [dataclasses.replace(clip, events=rows[clip.scene]) for clip in corpus.clips]
    line = "No event labels: the classes are used as events."
    return dataclasses.replace(corpus, events=corpus.scenes, clips=clips), [line]


def without_events(corpus: Corpus) -> Corpus:
    """The corpus without its event labels."""
    none = np.zeros(0, np.float32)
    clips = [dataclasses.replace(clip, events=none) for clip in corpus.clips]
    return dataclasses.replace(corpus, events=(), clips=clips)


def count_trained_before(init: str | Path, corpus: Corpus) -> int | None:
    """The number of validation and test clips that the bundle `init` was trained on.

    None if unknown, as `evaluation.count_trained_on`.
    """
    clips = [clip for clip in corpus.clips if clip.split != "train"]
    held_out = dataclasses.replace(corpus, clips=clips)
    return evaluation.count_trained_on(workdirs.of(Path(init)), held_out)


def find_copies(corpus: Corpus) -> list[tuple[str, str]]:
    """Pairs of names: a validation or test clip, and a training clip with the same content."""
    groups: list[Sequence[Clip]] = [corpus.clips]
    for key in (_size, functools.partial(_digest, size=65536), _digest):
        groups = [found for group in groups for found in _copies(group, key)]
    found = []
    for group in groups:
        known = next(clip.name for clip in group if clip.split == "train")
        found += [(clip.name, known) for clip in group if clip.split != "train"]
    return sorted(found)


def _copies(clips: Sequence[Clip], key: Callable[[str], Any]) -> list[list[Clip]]:
    """Clips of equal key, where some are for training and some are not; without unreadable ones."""
    found = defaultdict(list)
    for clip in clips:
        with contextlib.suppress(OSError):  # preparation reports it
            found[key(clip.name)].append(clip)
    return [group for group in found.values() if len({x.split == "train" for x in group}) == 2]


def _size(path: str) -> int:
    size = os.path.getsize(path)
    if not size:  # no recording, though equal to other empty files
        raise OSError
    return size


def _digest(path: str, size: int = -1) -> bytes:
    """Of a file's first `size` bytes, or of all."""
    with open(path, "rb") as file:
        if size < 0:
            return hashlib.file_digest(file, "sha256").digest()
        return hashlib.sha256(file.read(size)).digest()


def is_sound(name: str) -> bool:
    """Whether a class's name has a word of AudioSet's names of sounds, whatever its ending."""
    return not _stems(name).isdisjoint(_sounds())


@functools.cache
def _sounds() -> frozenset[str]:
    # "Inside, public space" and the like are places.
    labels = [label for label in AUDIOSET if not label.startswith(("Inside", "Outside"))]
    return frozenset().union(*map(_stems, labels))


def _stems(text: str) -> frozenset[str]:
    words = re.findall("[a-z]{3,}", text.lower())
    return frozenset(re.sub("(ing|ed|es|s|e|y|ies)$", "", word) for word in words)


def manifest_path(corpus: Corpus, out: Path) -> Path:
    """Where a run in `out` lists its corpus; its name is that of the data in the bundle."""
    name = re.sub(r"[^\w-]+", "_", corpus.name)
    of_results = name.lower() in ("predictions", "confusion")  # files of the run itself
    return out / f"{name}{'_recordings' * of_results}.csv"


def check_unchanged(corpus: Corpus, path: Path) -> None:
    """InputError if the run whose manifest is at `path` was trained on other recordings."""
    if path.exists() and path.with_name("checkpoints").exists():
        with tempfile.TemporaryDirectory() as folder:
            write_manifest(corpus, new := Path(folder, path.name))
            if path.read_bytes() != new.read_bytes():
                raise InputError(
                    f"the recordings, or their events, have changed since {path} was trained on: "
                    "restore them, use the same --tagger as before, or train in a new directory "
                    "with --fresh"
                )


def write_manifest(corpus: Corpus, path: Path) -> None:
    """Writes a manifest of absolute paths that `read_manifest` reads."""
    events = [f"event:{name}" for name in corpus.events]
    by = [f"by:{name}" for name in corpus.clips[0].by]
    rows = [
        [clip.name, corpus.scenes[clip.scene], clip.split, clip.group, corpus.licence]
        + [*clip.by.values(), *(f"{x:g}" for x in clip.events)]
        for clip in corpus.clips
    ]
    with atomic_write(path) as tmp_path:
        columns = ["file", "scene", "split", "group", "licence", *by, *events]
        write_table(tmp_path, columns, rows)


def lengths(corpus: Corpus) -> np.ndarray:
    """Seconds of up to MEASURED recordings, evenly chosen, of those that can be read."""
    step = math.ceil(len(corpus.clips) / MEASURED)
    return np.array(list(_seconds(corpus.clips[::step])))


def _seconds(clips: Sequence[Clip], rate: int = 8000) -> Iterator[float]:
    for clip in clips:
        try:
            yield sum(map(len, stream_audio(clip.name, rate))) / rate
        except InputError:  # preparation reports it
            continue


def about_length(seconds: np.ndarray, clip_seconds: float, long: str) -> str:
    """What happens to recordings of these lengths, in a sentence."""
    longer = seconds[seconds > 1.01 * clip_seconds]
    if not len(longer):
        return f"Clips of {clip_seconds:g} s."
    how = {"crop": "cropped to the centre", "windows": "cut into several clips"}[long]
    return (
        f"Clips of {clip_seconds:g} s. {len(longer)} of {len(seconds)} measured recordings are "
        f"longer (up to {longer.max():.1f} s) and are {how}."
    )


def clip_length(seconds: np.ndarray, chosen: Any = None) -> tuple[float, str]:
    """Clip length in seconds (`chosen` if given), and "crop" or "windows" for longer recordings."""
    if not len(seconds):
        raise InputError("none of the recordings can be read: `ergl classify` reports the reasons")
    clip_seconds = min(MAX_SECONDS, max(1.0, math.ceil(2 * np.quantile(seconds, 0.75) - 0.1) / 2))
    if isinstance(chosen, int | float):
        clip_seconds = float(chosen)
    return clip_seconds, "windows" if seconds.max() > 1.5 * clip_seconds else "crop"


def preset(
    corpus: Corpus,
    seconds: np.ndarray,
    out: Path,
    *,
    num_events: int,
    init: Bundle | None = None,
    fields: Mapping[str, Any],
) -> Config:
    """The configuration of a run in `out`, sized for the corpus.

    Args:
      corpus: with its splits.
      seconds: lengths of some recordings.
      out: absolute.
      num_events: how many there are; 0: a CNN.
      init: the bundle that `model.init_from`, one of the fields, names.
      fields: any of the configuration, which win, as {"train.epochs": 30}.
    """
    clips = sum(clip.split == "train" for clip in corpus.clips)
    batch = next(size for most, size in BATCH_SIZES if clips <= most)
    batch = min(batch, max(1, clips // 2))  # leaves room for clips that can't be read
    least, most = EPOCHS
    epochs = fields.get("train.epochs", min(most, max(least, round(STEPS * batch / clips))))
    clip_seconds, long = clip_length(seconds, fields.get("data.clip_seconds"))
    chosen: dict[str, Any] = {
        "data.source": "folder",
        "data.manifest": str(manifest_path(corpus, out)),
        "data.data_dir": str(out / "features"),
        "data.clip_seconds": clip_seconds,
        "data.pad": "repeat",
        "data.long": long,
        "data.validation_fraction": 0.0,  # the manifest has the splits
        "data.num_events": min(Config().data.num_events, max(1, num_events)),
        "model.name": "ergl" if num_events else "cnn",
        "model.encoder.architecture": "cnn10",
        "model.encoder.width_divisor": 8 if clips <= 5000 else 4,
        "model.encoder.dropout": 0.0,
        "model.dropout": 0.1,
        "optimizer.schedule": "cosine",
        "optimizer.warmup_epochs": 0.0 if epochs == 1 else 1.0,
        "train.batch_size": batch,
        "train.epochs": epochs,
        "augment.roll": True,
        "augment.time_masks": 2,
        "augment.time_width": 30,
        "augment.mel_masks": 2,
        "augment.mel_width": 6,
    }
    if init:
        chosen |= {
            "data.front_end": init.front_end.setting,
            "model.encoder.architecture": init.model.encoder.architecture,
            "model.encoder.width_divisor": init.model.encoder.width_divisor,
        }
        if init.front_end.waveform:  # masks of mel bins would cut into samples
            chosen["augment.mel_masks"] = 0
    return Config().replace(**{**chosen, **fields})


def parse_field(text: str) -> tuple[str, Any]:
    """ "train.epochs=30" as ("train.epochs", 30), the value as in Python, else a text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"{text!r}: write FIELD=VALUE, such as train.epochs=30")
    try:
        return name, json.loads({"True": "true", "False": "false"}.get(value, value))
    except ValueError:
        return name, value


def run_command(config: Config, workdir: Path) -> str:
    """The same run by run.py."""
    default = workdirs.flatten(Config().to_dict()) | {"data.source": "folder"}
    fields = workdirs.flatten(config.to_dict())
    words = [f"--config.{name}={x}" for name, x in fields.items() if x != default[name]]
    return shlex.join(
        ["python", "run.py", "--config=configs/ergl.py:folder", *words, f"--workdir={workdir}"]
    )
