"""Relations that are heard: what a model makes of a recording without the sounds of some events.

The edges of a graph show a relation only where the model keeps it there; an encoder whose receptive
field spans both sounds may have seen it before (benchmarks/RESULTS.md, "Explanations"). Where the
parts of a mixture are at hand, taking them out asks the whole model.
Shapes: S stems, L samples.
"""

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np

from ergl_jax import audio
from ergl_jax.errors import InputError
from ergl_jax.inference.classify import Model, waveform_blocks
from ergl_jax.inference.graph import scene_log_odds


@dataclasses.dataclass(frozen=True)
class SoundRelations:
    """What stems, and pairs of them, add to a scene, in nats of its log-odds.

    Attributes:
      names: of the stems, (S,).
      scene: the name of the scene.
      alone: (S,), how much the log-odds fall without each.
      pairs: (S, S), symmetric: alone[i] + alone[j] less the fall without both; zero on the
        diagonal. Above zero where two sounds tell something together that neither tells without
        the other: a relation.
    """

    names: tuple[str, ...]
    scene: str
    alone: np.ndarray
    pairs: np.ndarray

    @property
    def strongest(self) -> tuple[str, str]:
        """The pair that tells most together."""
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
      model: any that knows scenes, with a graph or without.
      stems: two or more sounds of equal length (L,), by name; their sum is the mixture, of which
        the centre is taken where it is longer than the bundle's clips.
      sample_rate: of the stems, in Hz.
      background: (L,), what is never taken out.
      against: a scene to tell the mixture's scene from; by default, all others together.

    Raises:
      InputError: fewer than two stems, unequal lengths, an unknown scene or the mixture's own, or
        samples that `Model.classify` would refuse.
    """
    if len(stems) < 2:
        raise InputError(f"{len(stems)} stem(s): a relation needs two")
    if against is not None and against not in model.bundle.scenes:
        raise InputError(
            f"against={against!r} is not one of the bundle's scenes: "
            f"{', '.join(model.bundle.scenes)}"
        )
    front_end = model.bundle.front_end
    sounds = list(stems.values()) + ([] if background is None else [background])
    if len({np.shape(sound) for sound in sounds}) > 1:
        raise InputError(f"stems differ in length: {[np.shape(sound) for sound in sounds]}")
    parts = [
        np.concatenate(list(waveform_blocks(sound, sample_rate, front_end))) for sound in sounds
    ]
    count, whole = len(stems), sum(parts)
    sets = [(), *((i,) for i in range(count)), *itertools.combinations(range(count), 2)]
    length = front_end.num_samples(model.bundle.clip_seconds)

    clips = []
    for gone in sets:
        mixture = whole - sum(parts[i] for i in gone)
        clips += audio.segment(mixture, length, pad=model.bundle.pad, long="crop")
    logits, _ = model.outputs(np.stack([clip for _, clip in clips]))
    scene = int(logits[0].argmax())
    if against == model.bundle.scenes[scene]:
        raise InputError(f"against={against!r} is what the mixture is called itself")
    other = None if against is None else model.bundle.scenes.index(against)
    log_odds = np.asarray(scene_log_odds(logits, scene, other))
    falls = dict(zip(sets, log_odds[0] - log_odds, strict=True))
    alone = np.array([falls[i,] for i in range(count)])
    pairs = np.zeros((count, count))
    for i, j in itertools.combinations(range(count), 2):
        pairs[i, j] = pairs[j, i] = alone[i] + alone[j] - falls[i, j]
    return SoundRelations(tuple(stems), model.bundle.scenes[scene], alone, pairs)
