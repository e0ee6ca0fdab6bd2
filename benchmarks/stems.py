"""Relations between sounds: how a model's answer changes when sounds are taken out of a mixture.

A graph's edges need not carry a relation, since an encoder whose receptive field spans both sounds
may have detected it before (RESULTS.md, "Explanations"). Taking sounds out tests the whole model.
Shapes: S stems, L samples.
"""

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np

from ergl_jax import audio
from ergl_jax.inference.classify import Model
from ergl_jax.inference.contributions import scene_log_odds
from ergl_jax.inference.windows import waveform_blocks


@dataclasses.dataclass(frozen=True)
class SoundRelations:
    """What stems, and pairs of them, add to the log-odds of a scene, in nats."""

    names: tuple[str, ...]  # of the stems
    scene: str
    alone: np.ndarray  # (S,), how much the log-odds fall without each stem
    # (S, S), symmetric, zero diagonal: alone[i] + alone[j] minus the fall without both. Positive if
    # two sounds add something together that neither adds without the other.
    pairs: np.ndarray

    @property
    def strongest(self) -> tuple[str, str]:
        """The pair with the largest value."""
        upper = np.where(np.triu(np.ones_like(self.pairs, bool), 1), self.pairs, -np.inf)
        i, j = np.unravel_index(upper.argmax(), upper.shape)
        return self.names[i], self.names[j]


def sound_relations(
    model: Model,
    stems: Mapping[str, np.ndarray],
    *,
    sample_rate: int,
    background: np.ndarray | None = None,
    against: str | None = None,
) -> SoundRelations:
    """Classifies a mixture without each of its stems, and without each pair of them.

    Args:
      model: any scene classifier.
      stems: two or more sounds of equal length (L,), by name. Their sum, cropped to the bundle's
        clip length, is the mixture.
      sample_rate: of the stems, in Hz.
      background: (L,), always part of the mixture.
      against: the scene to compare with; by default all others together.
    """
    bundle = model.bundle
    sounds = list(stems.values()) + ([] if background is None else [background])
    parts = [
        np.concatenate(list(waveform_blocks(sound, sample_rate, bundle.front_end)))
        for sound in sounds
    ]
    count, whole = len(stems), sum(parts)
    sets = [(), *((i,) for i in range(count)), *itertools.combinations(range(count), 2)]
    length = bundle.front_end.num_samples(bundle.clip_seconds)
    clips = []
    for removed in sets:
        mixture = whole - sum(parts[i] for i in removed)
        clips += audio.segment(mixture, length, pad=bundle.pad, long="crop")
    logits, _ = model.outputs(np.stack([clip for _, clip in clips]))
    scene = int(logits[0].argmax())
    if against == bundle.scenes[scene]:
        raise ValueError(f"against={against!r} is the scene of the mixture itself")
    other = None if against is None else bundle.scenes.index(against)
    log_odds = np.asarray(scene_log_odds(logits, scene, other))
    falls = dict(zip(sets, log_odds[0] - log_odds, strict=True))
    alone = np.array([falls[i,] for i in range(count)])
    pairs = np.zeros((count, count))
    for i, j in itertools.combinations(range(count), 2):
        pairs[i, j] = pairs[j, i] = alone[i] + alone[j] - falls[i, j]
    return SoundRelations(tuple(stems), bundle.scenes[scene], alone, pairs)
