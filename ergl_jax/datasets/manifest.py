"""What any corpus yields: clips with their labels, and the manifest that describes a user's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Clip:
    """One recording and its labels; the waveform is made or decoded when `load` is called."""

    name: str  # unique in its corpus
    scene: int  # index into Corpus.scenes
    split: str  # one of SPLITS
    group: str  # clips recorded together; a group never lies on both sides of a split
    events: np.ndarray  # (E,) float32 in 0..1
    load: Callable[[int], np.ndarray]  # sample_rate -> (L,) float32 mono; InputError if it can't


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A labelled set of clips: what every source yields and what the builder takes."""

    name: str
    scenes: tuple[str, ...]
    events: tuple[str, ...]
    clips: list[Clip]
    licence: str
    fingerprint: str  # hex; a hash of everything that decides the clips' content
