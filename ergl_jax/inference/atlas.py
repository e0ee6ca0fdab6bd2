"""What a model has learnt of each scene, over a test split; and whether other seeds agree.

Shapes: N clips, n events, S scenes. Relations are [i, j], from event j to event i.
"""

import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.special import softmax
from scipy.stats import spearmanr

from ergl_jax.errors import InputError
from ergl_jax.inference.explain import Explainer

EXAMPLES = 3  # clips that are named for each confusion
RELATIONS = 5  # that are told for each scene


@dataclasses.dataclass(frozen=True)
class Survey:
    """What one model computes of all clips of a split."""

    scenes: tuple[str, ...]
    events: tuple[str, ...]
    names: tuple[str, ...]  # of the clips, (N,)
    truth: np.ndarray  # (N,), indices of scenes
    probabilities: np.ndarray  # (N, S), calibrated
    event_probabilities: np.ndarray  # (N, n)
    edge_means: np.ndarray  # (N, n, n), each edge's mean over its channels
    node_contributions: np.ndarray  # (N, n), to the clip's most probable scene, in nats
    edge_contributions: np.ndarray  # (N, n, n), likewise
    dataset: str  # that the model was trained on

    @property
    def predicted(self) -> np.ndarray:
        """(N,), indices of scenes."""
        return self.probabilities.argmax(axis=1)

    @property
    def confusion(self) -> np.ndarray:
        """Counts (S, S): rows are the true scenes, columns the predicted ones."""
        counts = np.zeros((len(self.scenes),) * 2, int)
        np.add.at(counts, (self.truth, self.predicted), 1)
        return counts


@dataclasses.dataclass(frozen=True)
class ScenePage:
    """What sets a scene apart.

    Attributes:
      scene: its index.
      clips: how many are of it.
      accuracy: share of them that is named right.
      edge_means: (n, n), their mean relation matrix.
      event_probabilities: (n,), their mean.
      neighbour: index of the scene it is most often confused with, in either direction; where it is
        with none, the scene that its clips find most probable besides.
      confusions: clips confused between the two.
      apart: (i, j, d) of the RELATIONS that differ most between the two, d being the difference of
        mean edge values over their pooled standard deviation, above zero where it is higher here.
    """

    scene: int
    clips: int
    accuracy: float
    edge_means: np.ndarray
    event_probabilities: np.ndarray
    neighbour: int
    confusions: int
    apart: tuple[tuple[int, int, float], ...]


def survey(
    explainer: Explainer, clips: Iterable[tuple[str, str, np.ndarray]], *, steps: int = 0
) -> Survey:
    """Opens the graph of every clip: (name, scene, log-mel (F, M)) each.

    `steps` as of `GraphReader.contributions`. Raises InputError for a scene that the model doesn't
    know, or no clips.
    """
    bundle = explainer.model.bundle
    names, truth, rows = [], [], []
    for name, scene, log_mel in clips:
        if scene not in bundle.scenes:
            raise InputError(f"the bundle does not know scene {scene!r} of clip {name!r}")
        graph = explainer.open_log_mel(log_mel)
        predicted = int(graph.scene_logits.argmax())
        contributions = explainer.reader.contributions(
            graph.nodes, graph.edges, predicted, steps=steps
        )
        names.append(name)
        truth.append(bundle.scenes.index(scene))
        rows.append(
            (
                softmax(graph.scene_logits.astype(np.float64)),
                graph.event_probabilities,
                graph.edges.mean(axis=-1),
                *contributions,
            )
        )
    if not rows:
        raise InputError("the split has no clips")
    return Survey(
        bundle.scenes,
        bundle.events,
        tuple(names),
        np.array(truth),
        *(np.stack(column) for column in zip(*rows, strict=True)),
        dataset=bundle.dataset,
    )


def scene_pages(found: Survey) -> list[ScenePage]:
    """A ScenePage for each scene that has clips."""
    return [_page(found, int(scene)) for scene in np.unique(found.truth)]


def _page(found: Survey, scene: int) -> ScenePage:
    mine = found.truth == scene
    counts = found.confusion
    mutual = counts[scene] + counts[:, scene]
    mutual[scene] = -1
    probable = found.probabilities[mine].mean(axis=0)
    probable[scene] = -1
    neighbour = int(np.lexsort((probable, mutual))[-1])
    theirs = found.truth == neighbour
    apart = ()
    if min(mine.sum(), theirs.sum()) > 1:
        apart = _most_apart(found.edge_means[mine], found.edge_means[theirs])
    return ScenePage(
        scene=scene,
        clips=int(mine.sum()),
        accuracy=float((found.predicted[mine] == scene).mean()),
        edge_means=found.edge_means[mine].mean(axis=0),
        event_probabilities=found.event_probabilities[mine].mean(axis=0),
        neighbour=neighbour,
        confusions=int(mutual[neighbour]),
        apart=apart,
    )


def _most_apart(mine: np.ndarray, theirs: np.ndarray) -> tuple[tuple[int, int, float], ...]:
    """(i, j, d) of relations (N, n, n) of two scenes, the greatest |d| first."""
    weights = np.array([len(mine) - 1, len(theirs) - 1])
    variances = np.stack([mine.var(axis=0, ddof=1), theirs.var(axis=0, ddof=1)])
    pooled = np.sqrt(np.tensordot(weights, variances, 1) / weights.sum())
    difference = mine.mean(axis=0) - theirs.mean(axis=0)
    # Without MEL all edges are zero: no relation differs then.
    d = np.divide(difference, pooled, out=np.zeros_like(difference), where=pooled > 0)
    order = np.argsort(-np.abs(d), axis=None, kind="stable")
    pairs = [tuple(map(int, np.unravel_index(k, d.shape))) for k in order if d.flat[k]]
    return tuple((i, j, float(d[i, j])) for i, j in pairs if i != j)[:RELATIONS]


def confusions(found: Survey) -> list[dict[str, Any]]:
    """Each confusion that occurs, the most frequent first, with its most certain clips."""
    counts = found.confusion
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")
    result = []
    for k in order[: np.count_nonzero(counts)]:
        true, predicted = (int(x) for x in np.unravel_index(k, counts.shape))
        rows = np.flatnonzero((found.truth == true) & (found.predicted == predicted))
        rows = sorted(rows, key=lambda row: -found.probabilities[row, predicted])[:EXAMPLES]
        result.append(
            {
                "scene": found.scenes[true],
                "predicted": found.scenes[predicted],
                "clips": int(counts[true, predicted]),
                "examples": [
                    {
                        "clip": found.names[row],
                        "probability": float(found.probabilities[row, predicted]),
                    }
                    for row in rows
                ],
            }
        )
    return result


def agreement(surveys: list[Survey]) -> dict[str, float] | None:
    """How far models agree on what matters in the same clips; None for a single one.

    Spearman's rank correlation of their contributions to events, and to relations, for each clip
    that both give the same scene; the mean over such clips and over pairs of models. Events are
    matched by name, and those that not all models have stay out.
    An event's relation to itself counts too.

    Returns:
      events, relations: the correlations, -1 to 1, NaN where no clip is left.
      clips: clips on which two models agree, over all pairs.

    Raises InputError for surveys of different clips, or models that share fewer than two events.
    """
    if len(surveys) < 2:
        return None
    if len({found.names for found in surveys}) > 1:
        raise InputError("the runs were tested on different clips: give runs of one dataset")
    common = [name for name in surveys[0].events if all(name in s.events for s in surveys)]
    if len(common) < 2:
        raise InputError("the bundles share fewer than two events")
    on_events, on_relations = [], []
    for a, b in itertools.combinations(surveys, 2):
        ours, theirs = ([s.events.index(name) for name in common] for s in (a, b))
        named = np.array(a.scenes)[a.predicted] == np.array(b.scenes)[b.predicted]
        for clip in np.flatnonzero(named):
            on_events.append(
                _rank(a.node_contributions[clip, ours], b.node_contributions[clip, theirs])
            )
            on_relations.append(
                _rank(
                    a.edge_contributions[clip][np.ix_(ours, ours)],
                    b.edge_contributions[clip][np.ix_(theirs, theirs)],
                )
            )
    return {
        "events": float(np.mean(on_events)) if on_events else float("nan"),
        "relations": float(np.mean(on_relations)) if on_relations else float("nan"),
        "clips": len(on_events),
    }


def _rank(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel(), b.ravel()
    if np.ptp(a) == 0 or np.ptp(b) == 0:  # all alike, as edges are without MEL
        return 0.0
    return float(spearmanr(a, b).statistic)
