"""Labelled recordings as users have them: in a folder for each class, or in a manifest."""

import dataclasses
import os
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from ergl_jax.audio import expand, read_audio
from ergl_jax.audio.recordings import SUFFIXES, warn_of_skipped
from ergl_jax.datasets.manifest import Clip, Corpus, read_manifest, read_rows
from ergl_jax.datasets.tables import nfc
from ergl_jax.errors import InputError, report, warn
from ergl_jax.files import find_path, reading

# Folders of these names hold the classes of one split each.
SPLIT_FOLDERS = {"train": "train", "val": "validation", "valid": "validation"}
SPLIT_FOLDERS |= {"validate": "validation"}
SPLIT_FOLDERS |= {"validation": "validation", "dev": "validation", "test": "test", "eval": "test"}
SPLIT_FOLDERS |= {"training": "train", "testing": "test", "evaluation": "test"}


def read(folder: Path | None, manifest: Path | None) -> tuple[Corpus, list[str]]:
    """The recordings of one of the two, names absolute, and what was chosen, a sentence each."""
    if manifest:
        return read_listed(manifest)
    assert folder
    return read_folder(Path(os.path.abspath(folder))), []


def read_folder(folder: Path) -> Corpus:
    """The recordings in a folder that has a folder for each class, at any depth below it.

    Recordings in the same subfolder of a class, at any depth, are a group, which stays in one
    split; any other recording is its own group. Folders named train, validation and test are
    splits, with classes in them; without these all clips are for training. Warns of recordings that
    are in no class.
    """
    tops = _folders(folder)
    parts = [(SPLIT_FOLDERS[top.name.lower()], top) for top in tops if _is_split(top)]
    named = [top for top in tops if top.name.lower() in SPLIT_FOLDERS]
    if len(named) > len(parts) and (parts or len(named) == len(tops) > 1):
        wrong = next(top for top in named if not _is_split(top))
        inside = f"contains {x[0]}" if (x := _recordings(wrong)) else "has no class folders"
        raise InputError(
            f"{wrong} has a split's name, but {inside}: sort its recordings into class folders, "
            f"{wrong / 'CLASS'}"
        )
    if parts and len(parts) < len(tops):
        other = next(top for top in tops if not _is_split(top))
        raise InputError(
            f"{other} is next to split folders ({', '.join(x.name for _, x in parts)}): move it "
            "into one of them, or, if it is a split itself, rename it to train, validation or test"
        )
    found: list[tuple[str, str, str, Path]] = []  # scene, split, group, path
    skipped: Counter[str] = Counter()
    for split, part in parts or [("train", folder)]:
        for top in _folders(part):
            try:
                paths = [Path(path) for path in expand(top, report, skipped)]
            except InputError as error:
                raise InputError(f"{error} of this class, or move the folder away") from error
            if not paths:
                raise InputError(
                    f"{top}: no recording of this class can be read: make the folder readable, or "
                    "move it away"
                )
            for path in paths:
                group = top / path.relative_to(top).parts[0]  # a subfolder, or the recording
                found.append((nfc(top.name), split, str(group), path))
    warn_of_skipped(folder, skipped)
    scenes = sorted({scene for scene, *_ in found})
    left_out = _recordings(folder)
    if not scenes:
        remedy = "move" if left_out else "put"
        raise InputError(
            f"{folder} has no class folders: {remedy} each recording into a folder named after its "
            "class, or list them in a CSV for --manifest"
        )
    if left_out:
        warn(
            f"{folder}: recordings that are in no class's folder are not used: {len(left_out)}, "
            f"such as {left_out[0]}"
        )
    no_events = np.zeros(0, np.float32)
    clips = [
        Clip(str(path), scenes.index(scene), split, group, no_events, partial(read_audio, path))
        for scene, split, group, path in found
    ]
    return Corpus(folder.absolute().name, tuple(scenes), (), clips, "", "")


def _is_split(folder: Path) -> bool:
    """Whether a folder is named as a split, and has folders but no recordings right in it."""
    named = folder.name.lower() in SPLIT_FOLDERS
    return named and bool(_folders(folder)) and not _recordings(folder)


def _recordings(folder: Path) -> list[str]:
    """The names of the audio files right in a folder."""
    with reading(folder):
        names = sorted(x.name for x in folder.iterdir() if x.is_file())
    return [x for x in names if x.lower().endswith(SUFFIXES) and not x.startswith(".")]


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        reason = "a file, not a folder" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {reason}; for a CSV use --manifest")
    with reading(folder):
        return sorted(x for x in folder.iterdir() if x.is_dir() and not x.name.startswith("."))


def read_listed(path: Path) -> tuple[Corpus, list[str]]:
    """The recordings of a manifest, and what was chosen, a sentence each.

    Its last fold is for testing where it has folds and no splits; where it has neither, all clips
    are for training.
    """
    header = read_rows(path)
    columns = header[0].cells
    if "split" in columns:
        return _absolute(read_manifest(path), path), []
    if "fold" in columns:
        folds = sorted({row.cells["fold"] for row in header}, key=lambda x: (len(x), x))
        found = read_manifest(path, test_folds=folds[-1:])
        return _absolute(found, path), [f"Fold {folds[-1]} is the test split."]
    return _absolute(read_manifest(path, split="train"), path), []


def _absolute(corpus: Corpus, path: Path) -> Corpus:
    parent = Path(os.path.abspath(path)).parent
    clips = [
        dataclasses.replace(clip, name=str(find_path(parent / clip.name))) for clip in corpus.clips
    ]
    return dataclasses.replace(corpus, clips=clips)
