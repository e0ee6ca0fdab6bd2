"""Pictures of relations in time, of the dynamic event graph: activities, correlations at lags.

Import this module where it is used, as `pictures`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ergl_jax.audio import FrontEnd
from ergl_jax.inference import narrative
from ergl_jax.inference.activity import step_seconds
from ergl_jax.inference.explanation import Explanation
from ergl_jax.inference.pictures import (
    GREY,
    INK,
    NEGATIVE,
    POSITIVE,
    STYLE,
    WIDTH,
    label,
)
from ergl_jax.inference.relations import Relation

ROW = 1.9  # inches
LEAST_SCALE = 0.2  # a smaller correlation looks small


@rc_context(STYLE)
def strongest_relations(explanation: Explanation, front_end: FrontEnd) -> Figure:
    """The pairs of events that contribute most, one in a row; there must be one.

    On the left the activities of the two events over time, on the right their correlation at lags.
    """
    e, found = explanation, explanation.pairs()[: narrative.MAX_RELATIONS]
    times = e.activations.event_times  # (n, T)
    step = step_seconds(front_end, len(e.activations.log_mel), times.shape[1])
    edges = step * np.arange(times.shape[1] + 1)
    figure = Figure(figsize=(WIDTH, ROW * len(found)), layout="constrained")
    rows = figure.subfigures(len(found), 1, squeeze=False)[:, 0]
    limit = _limit(found)
    for row, each in zip(rows, found, strict=True):
        sentence = narrative.in_time(each, [label(name, longest=40) for name in e.events])
        row.suptitle(label(sentence, 64, longest=140), x=0.01, ha="left", fontsize=9)
        panels = row.subplot_mosaic([["i", "lags"], ["j", "lags"]], width_ratios=(3, 2))
        for name, event in zip("ij", each.events, strict=True):
            axes = panels[name]
            axes.stairs(times[event], edges, fill=True, color=GREY)
            axes.set(xlim=(0, len(e.sound) / e.sample_rate), ylim=(0, 1), yticks=(0, 1))
            axes.set_title(label(e.events[event], longest=28), loc="left", fontsize=9)
        panels["i"].tick_params(labelbottom=False)
        panels["j"].set_xlabel("seconds of the window")
        _draw_curve(panels["lags"], each, limit)
        panels["lags"].set_xlabel("lag of the upper (s)")
    return figure


@rc_context(STYLE)
def mean_relations(
    relations: Sequence[tuple[Relation, Relation | None]],
    events: Sequence[str],
    scenes: tuple[str, str],
) -> Figure:
    """Correlations at lags of pairs of events, each in two scenes: the second may be missing."""
    figure = Figure(figsize=(WIDTH, ROW * len(relations)), layout="constrained")
    panels = figure.subplots(len(relations), 1, squeeze=False)[:, 0]
    limit = _limit([each for pair in relations for each in pair if each])
    for axes, (here, there) in zip(panels, relations, strict=True):
        upper, lower = (label(events[event], longest=24) for event in here.events)
        if there:
            dashed: Any = {"color": GREY, "ls": "--", "label": label(scenes[1], longest=24)}
            axes.plot(there.lags, there.correlations, **dashed)
        _draw_curve(axes, here, limit, label=label(scenes[0], longest=24))
        axes.set_title(f"{upper} after {lower}", fontsize=9)
        axes.legend(fontsize=8)
    panels[-1].set_xlabel("lag (s)")
    return figure


def _limit(relations: Sequence[Relation]) -> float:
    """Of the axis of correlations, the same for all."""
    return 1.1 * max(LEAST_SCALE, *(abs(each.correlations).max() for each in relations))


def _draw_curve(axes: Axes, relation: Relation, limit: float, **line: Any) -> None:
    """Correlations over lags; a dot, red or blue by its sign, marks the one that names it."""
    axes.axhline(0, color=INK, lw=0.6)
    axes.axvline(0, color=INK, lw=0.6, ls=":")
    axes.plot(relation.lags, relation.correlations, color=INK, lw=1.2, **line)
    k = relation.peak
    colour = POSITIVE if relation.correlation > 0 else NEGATIVE
    axes.plot(relation.lags[k], relation.correlations[k], "o", color=colour, ms=5)
    last = relation.lags[-1]
    axes.set(ylim=(-limit, limit), xticks=(-last, 0, last), ylabel="correlation")
