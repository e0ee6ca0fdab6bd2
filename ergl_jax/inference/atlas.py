"""What a model has learnt of each scene, over a test split, and whether several runs agree.

Shapes: N clips, n events, S scenes. Relations are [i, j], from event j to event i.
"""

import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax
from scipy.stats import spearmanr

from ergl_jax.errors import InputError
from ergl_jax.inference.explain import Explainer
from ergl_jax.inference.narrative import plain
from ergl_jax.inference.relations import Relation, relation
from ergl_jax.inference.relations import strongest as strongest_correlations

MAX_EXAMPLES = 3  # clips of each confusion
MAX_RELATIONS = 5  # of each scene


@dataclasses.dataclass(frozen=True)
class Survey:
    """What one model computes of all clips of a split."""

    scenes: tuple[str, ...]
    events: tuple[str, ...]
    names: tuple[str, ...]  # of the clips, (N,)
    truth: np.ndarray  # (N,), indices of scenes
    probabilities: np.ndarray  # (N, S)
    presence: np.ndarray  # (N, n), as of Activations: probabilities of events, for ERGL
    edge_means: np.ndarray  # (N, n, n), over each edge's channels
    node_contributions: np.ndarray  # (N, n), to the clip's most probable scene, in nats
    edge_contributions: np.ndarray  # (N, n, n)
    dataset: str  # that the model was trained on
    # Of the dynamic event graph, whose `edge_means` are its largest correlations instead:
    lags: tuple[float, ...] = ()  # (K,), in seconds
    edges: np.ndarray | None = None  # (N, n, n, K)

    @property
    def predicted(self) -> np.ndarray:
        """(N,), indices of scenes."""
        return self.probabilities.argmax(axis=1)

    @property
    def measure(self) -> str:
        """What `presence` is called in JSON."""
        return "event_presence" if self.lags else "event_probabilities"

    @property
    def accuracy(self) -> float:
        return float((self.predicted == self.truth).mean())

    @property
    def confusion(self) -> np.ndarray:
        """Counts (S, S): rows are the true scenes, columns the predicted ones."""
        counts = np.zeros((len(self.scenes),) * 2, int)
        np.add.at(counts, (self.truth, self.predicted), 1)
        return counts


def survey(
    explainer: Explainer, clips: Iterable[tuple[str, str, np.ndarray]], *, steps: int = 0
) -> Survey:
    """Surveys clips, each (name, scene, log-mel (F, M)).

    `steps` as in `GraphReader.contributions`.
    """
    bundle = explainer.model.bundle
    names, truth, rows = [], [], []
    for name, scene, log_mel in clips:
        a = explainer.activations(log_mel)
        predicted = int(a.scene_logits.argmax())
        by_node, by_edge = explainer.reader.contributions(a.nodes, a.edges, predicted, steps=steps)
        names.append(name)
        truth.append(bundle.scenes.index(scene))
        row = {
            "probabilities": softmax(a.scene_logits.astype(np.float64)),
            "presence": a.presence,
            "edge_means": a.edge_strengths,
            "node_contributions": by_node,
            "edge_contributions": by_edge,
        }
        rows.append(row | ({"edges": a.edges} if a.lags else {}))
    columns: Any = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    return Survey(
        scenes=bundle.scenes,
        events=bundle.events,
        names=tuple(names),
        truth=np.array(truth),
        dataset=bundle.dataset,
        lags=explainer.lags,
        **columns,
    )


def summary(survey: Survey) -> dict[str, Any]:
    """The numbers of the atlas for JSON; "pages" has one entry for each scene with clips."""
    return {
        "dataset": survey.dataset,
        "clips": len(survey.names),
        "accuracy": survey.accuracy,
        "scenes": list(survey.scenes),
        "events": list(survey.events),
        "confusion": survey.confusion.tolist(),
        "confusions": _confusions(survey),
        "pages": [_scene(survey, int(scene)) for scene in np.unique(survey.truth)],
    }


def _confusions(survey: Survey) -> list[dict[str, Any]]:
    """Each confusion that occurs, the most frequent first, with its most certain clips."""
    counts = survey.confusion
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[: np.count_nonzero(counts)]
    confusions = []
    for true, predicted in np.transpose(np.unravel_index(order, counts.shape)):
        p = survey.probabilities[:, predicted]
        rows = np.flatnonzero((survey.truth == true) & (survey.predicted == predicted))
        rows = rows[np.argsort(-p[rows], kind="stable")][:MAX_EXAMPLES]
        confusions.append(
            {
                "scene": survey.scenes[true],
                "predicted": survey.scenes[predicted],
                "clips": int(counts[true, predicted]),
                "examples": [_example(survey, int(row)) for row in rows],
            }
        )
    return confusions


def _example(survey: Survey, row: int) -> dict[str, Any]:
    """A clip and the probability of the scene that it is classified as."""
    return {"clip": survey.names[row], "probability": float(survey.probabilities[row].max())}


def own_event(scene: str, events: Iterable[str]) -> int | None:
    """Index of the event that a scene is named after: "rooster" -> "Chicken, rooster"."""
    for index, event in enumerate(events):
        names = plain(event).casefold()
        if plain(scene).casefold() in (names, *map(str.strip, names.split(","))):
            return index
    return None


def _scene(survey: Survey, scene: int) -> dict[str, Any]:
    """What distinguishes a scene from its neighbour, the scene it is most confused with.

    Confusions are counted in both directions. Without any, the neighbour is the scene with the next
    highest mean probability.
    """
    here = survey.truth == scene
    mutual = survey.confusion[scene] + survey.confusion[:, scene]
    probable = survey.probabilities[here].mean(axis=0)
    mutual[scene] = probable[scene] = -1
    neighbour = int(np.lexsort((probable, mutual))[-1])
    there = survey.truth == neighbour
    mean, apart = survey.edge_means[here].mean(axis=0), []
    if survey.edges is None and min(here.sum(), there.sum()) > 1:
        other = survey.edge_means[there].mean(axis=0)
        d = _cohens_d(survey.edge_means[here], survey.edge_means[there])
        np.fill_diagonal(d, 0)
        order = np.argsort(-np.abs(d), axis=None, kind="stable")[:MAX_RELATIONS]
        apart = [
            {
                "from": survey.events[j],
                "to": survey.events[i],
                "d": float(d[i, j]),
                "mean_edge": float(mean[i, j]),
                "neighbour_mean_edge": float(other[i, j]),
            }
            for i, j in np.transpose(np.unravel_index(order, d.shape))
            if d[i, j]
        ]
    edges: dict[str, Any] = {"edge_means": mean.tolist(), "apart": apart}
    if survey.edges is not None:
        edges = {
            "edge_correlations": strongest_correlations(survey.edges[here].mean(axis=0)).tolist(),
            "pairs": [each.to_dict(survey.events) for each in compare(survey, scene, neighbour)],
        }
    predicted = survey.predicted == scene
    right = np.flatnonzero(here & predicted)
    own, owned = own_event(survey.scenes[scene], survey.events), None
    if own is not None:
        strongest = survey.node_contributions[predicted].argmax(axis=1) == own
        owned = {
            "event": survey.events[own],
            "clips": int(predicted.sum()),  # classified as this scene
            "strongest": int(strongest.sum()),  # in which the event contributes most
        }
    return {
        "scene": survey.scenes[scene],
        "clips": int(here.sum()),
        "accuracy": float((survey.predicted[here] == scene).mean()),
        "neighbour": survey.scenes[neighbour],
        "confusions": int(mutual[neighbour]),
        survey.measure: survey.presence[here].mean(axis=0).tolist(),
        **edges,
        "own_event": owned,
        "most_certain": (
            _example(survey, int(right[survey.probabilities[right, scene].argmax()]))
            if len(right)
            else None
        ),
    }


class Compared(NamedTuple):
    """A relation of two events in two scenes, of the mean correlations over clips.

    Attributes:
      here: with its mean contribution in the clips that are classified as this scene.
      there: in the neighbour; None without clips.
      d: Cohen's, at the lag where it is largest in magnitude; 0 with fewer than two clips.
    """

    here: Relation
    there: Relation | None
    d: float

    def to_dict(self, names: tuple[str, ...]) -> dict[str, Any]:
        """For JSON; `names` are those of all events."""
        there = self.there and self.there.to_dict(names)["correlations"]
        return self.here.to_dict(names) | {"d": self.d, "neighbour_correlations": there}


def compare(survey: Survey, scene: int, neighbour: int) -> list[Compared]:
    """The MAX_RELATIONS pairs of events that set two scenes apart most; [] for ERGL.

    Only pairs that contribute to at least one clip of the survey, and whose mean relation is clear
    in one of the two scenes. If the neighbour has no clips, pairs are sorted by contribution.
    """
    if survey.edges is None:
        return []
    here, there = survey.edges[survey.truth == scene], survey.edges[survey.truth == neighbour]
    contributions = survey.edge_contributions[survey.predicted == scene].sum(axis=0)
    contributions = contributions / max(1, (survey.predicted == scene).sum())
    used = survey.edge_contributions.any(axis=0)
    d = _cohens_d(here, there) if min(len(here), len(there)) > 1 else np.zeros_like(here[0])
    found = []
    for i, j in np.argwhere(np.triu(used | used.T, 1)).tolist():
        both = np.concatenate([d[i, j], d[j, i]])
        size = float(contributions[i, j] + contributions[j, i])
        one = relation(here.mean(axis=0), (i, j), size, survey.lags)
        other = relation(there.mean(axis=0), (i, j), 0.0, survey.lags) if len(there) else None
        if one.is_clear or other and other.is_clear:
            found.append(Compared(one, other, float(both[np.abs(both).argmax()])))
    found.sort(key=lambda each: (-abs(each.d), -abs(each.here.contribution)))
    return found[:MAX_RELATIONS]


def _cohens_d(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Difference of means (...) of two sets (N, ...), over their pooled standard deviation."""
    weights = np.array([len(a) - 1, len(b) - 1])
    variances = np.stack([a.var(axis=0, ddof=1), b.var(axis=0, ddof=1)])
    pooled = np.sqrt(np.tensordot(weights, variances, 1) / weights.sum())
    difference = a.mean(axis=0) - b.mean(axis=0)
    # Without MEL all edges are zero.
    return np.divide(difference, pooled, out=np.zeros_like(difference), where=pooled > 0)


def agreement(surveys: list[Survey]) -> dict[str, float] | None:
    """Whether models agree on what contributes to the scene of the same clips; None for one model.

    Spearman's rank correlation between the contributions of two models, over events and over
    relations (self-relations included): the mean over all pairs of models and the clips to which
    both give the same scene, without clips in which both have constant contributions. Events are
    matched by name; only those of all models count.

    Returns:
      events, relations: correlations, NaN if there is no such clip, 0 if no contribution differs.
      clips: number of such clips, over all pairs.

    Raises InputError for surveys of different clips or fewer than two common events.
    """
    if len(surveys) < 2:
        return None
    common = [name for name in surveys[0].events if all(name in s.events for s in surveys)]
    if len({s.names for s in surveys}) > 1 or len(common) < 2:
        raise InputError(
            "the runs were tested on different clips or have fewer than two events in common: give "
            "runs of one dataset"
        )
    found: dict[str, list[float]] = {"events": [], "relations": []}
    for a, b in itertools.combinations(surveys, 2):
        ours, theirs = ([s.events.index(name) for name in common] for s in (a, b))
        same = np.array(a.scenes)[a.predicted] == np.array(b.scenes)[b.predicted]
        for clip in np.flatnonzero(same):
            nodes = a.node_contributions[clip][ours], b.node_contributions[clip][theirs]
            found["events"].append(_rank_correlation(*nodes))
            edges = (
                a.edge_contributions[clip][np.ix_(ours, ours)],
                b.edge_contributions[clip][np.ix_(theirs, theirs)],
            )
            found["relations"].append(_rank_correlation(*edges))
    return {what: _mean(each) for what, each in found.items()} | {"clips": len(found["events"])}


def _mean(correlations: list[float]) -> float:
    """The mean of those that are not NaN: 0 if all are NaN; NaN for an empty list."""
    if not correlations:
        return np.nan
    defined = [x for x in correlations if not np.isnan(x)]
    return float(np.mean(defined)) if defined else 0.0


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's; 0 if one of the two is constant, NaN if both are."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan if np.ptp(a) == np.ptp(b) else 0.0
    return float(spearmanr(a.ravel(), b.ravel()).statistic)
