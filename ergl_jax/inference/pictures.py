"""Pictures of an Explanation: matrices, graph, timeline, curves. Each function returns a Figure.

Lengths of the graph are in inches; n events, T tokens, F frames, M mel bins. Matplotlib is imported
where it draws: its import makes directories in the user's home.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import librosa
import numpy as np

from ergl_jax.audio import FrontEnd
from ergl_jax.inference.explain import Explanation
from ergl_jax.inference.fidelity import Curves
from ergl_jax.inference.narrative import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#1b1f24"  # of all text and lines: the page puts the reader's own ink in its place
ADDS, TAKES = "#c8374a", "#3b78c4"  # readable on white and on black
SIGNED = "RdBu_r"
SHOWN_RELATIONS = 12
SHOWN_EVENTS = 12
MARKED_HERTZ = (200, 500, 1000, 2000, 5000, 10000)
STYLE = {
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.edgecolor": INK,
    "legend.frameon": False,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.unicode_minus": True,
    "svg.hashsalt": "ergl",  # the same picture is the same file
}


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG or an SVG, by the path's suffix, on white."""
    with _style():
        kind = path.suffix.removeprefix(".")
        dated = {"metadata": {"Date": None}} if kind == "svg" else {}
        figure.savefig(path, format=kind, dpi=140, **dated)


def svg(figure: Figure) -> str:
    """The figure as SVG on nothing, for a page."""
    written = io.StringIO()
    with _style():
        figure.savefig(written, format="svg", dpi=140, transparent=True, metadata={"Date": None})
    return written.getvalue()


def _style() -> contextlib.AbstractContextManager:
    import matplotlib

    return matplotlib.rc_context(STYLE)


def label(name: str, width: int = 0) -> str:
    """A name as it is drawn: on one line, or wrapped at `width` characters; never mathematics."""
    name = " ".join(name.split())
    name = name if len(name) <= 60 else name[:59] + "…"
    # Matplotlib warns of each character that its font lacks.
    name = "".join(c if ord(c) in _drawable() else "\ufffd" for c in name).replace("$", r"\$")
    return "\n".join(textwrap.wrap(name, width)) if width else name


@functools.cache
def _drawable() -> frozenset[int]:
    """The characters of Matplotlib's font."""
    import matplotlib.font_manager

    with _style():
        found = matplotlib.font_manager.findfont(matplotlib.font_manager.FontProperties())
    return frozenset(matplotlib.font_manager.get_font(found).get_charmap())


def matrix(explanation: Explanation) -> Figure:
    """Mean edges and contributions of relations, n x n each: rows receive, columns send."""
    from matplotlib.colors import Normalize

    n = len(explanation.events)
    names = [label(name) for name in explanation.events]
    panel = max(3.2, n * (0.26 if n <= 30 else 0.17))  # inches
    font, turned = (9 if n <= 30 else 7.5), (45 if n <= 12 else 90)
    scene = plain(explanation.scenes[explanation.scene])
    with _style():
        figure = _figure(1, 1, layout=None)
        longest = max(
            figure.text(0, 0, name, fontsize=font).get_window_extent().width for name in names
        )
        figure.texts.clear()
        longest /= figure.dpi
        left, below, between = (
            longest + 0.5,
            (longest if turned == 90 else 0.8 * longest) + 0.5,
            1.5,
        )
        width, height = left + 2 * panel + between + 1.1, below + panel + 0.4
        figure.set_size_inches(width, height)
        shape = (panel / width, panel / height)
        one = figure.add_axes((left / width, below / height, *shape))
        two = figure.add_axes(((left + panel + between) / width, below / height, *shape))
        shown = one.imshow(explanation.edge_means, cmap="viridis")
        one.set_title("mean over an edge's channels")
        _bar(figure, shown, one, "mean edge")
        values = explanation.edge_contributions
        limit = np.abs(values).max() or 1.0
        shown = two.imshow(values, cmap=SIGNED, norm=Normalize(-limit, limit))
        two.set_title(f"what relations add to {label(scene)}")
        _bar(figure, shown, two, "contribution (nats)")
        for axes in (one, two):
            anchor = {"ha": "right", "va": "center" if turned == 90 else "top"}
            axes.set_xticks(
                range(n), names, rotation=turned, rotation_mode="anchor", fontsize=font, **anchor
            )
            axes.tick_params(length=2)
            axes.set_xlabel("from this event")
        one.set_yticks(range(n), names, fontsize=font)
        two.set_yticks(range(n), [])
        one.set_ylabel("to this event")
    return figure


def graph(explanation: Explanation) -> Figure:
    """Events on a circle and the strongest relations between them, as arrows.

    A node's area is its event's probability, its colour what it adds; an arrow's width is what its
    relation adds or takes.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    names = [label(name, 22) for name in explanation.events]
    n = len(names)
    order = _neighbours(explanation.edge_contributions)
    with _style():
        figure = _figure(1, 1, layout=None)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axis("off")
        texts = [axes.text(0, 0, name, va="center", linespacing=1) for name in names]
        boxes = [text.get_window_extent() for text in texts]
        wide = max(box.width for box in boxes) / figure.dpi
        heights = np.array([box.height for box in boxes]) / figure.dpi + 0.06
        # The circle, clockwise from above; its right half is labelled on the right.
        angles = np.pi / 2 - 2 * np.pi * (np.arange(n) + 0.5) / n
        sides = np.cos(angles) >= 0
        tall = max(heights[order[sides]].sum(), heights[order[~sides]].sum())
        radius = max(1.7 if n > 2 else 0.5, tall / 2 - 0.35)
        below = 0.95  # for the legend
        height = 2 * radius + 0.9 + below
        width = max(2 * (radius + wide + 0.75), 6.0)
        figure.set_size_inches(width, height)
        axes.set(xlim=(0, width), ylim=(0, height))
        centre = np.array([width / 2, below + 0.45 + radius])
        places = np.empty((n, 2))
        places[order] = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        diameter = min(26.0, 0.6 * 72 * 2 * radius * math.sin(np.pi / max(n, 3)))  # points, at most
        probabilities = np.clip(explanation.opened.event_probabilities, 0, 1)
        diameters = diameter * np.sqrt(0.1 + 0.9 * probabilities)
        limit = np.abs(explanation.node_contributions).max() or 1.0
        colours = ScalarMappable(Normalize(-limit, limit), SIGNED)
        axes.scatter(
            *places.T,
            s=diameters**2,
            c=colours.to_rgba(explanation.node_contributions),
            edgecolors=INK,
            linewidths=0.8,
            zorder=3,
        )
        for side, sign in ((sides, 1), (~sides, -1)):
            chosen = order[side]
            chosen = chosen[np.argsort(-places[chosen, 1])]  # from above
            wanted = centre[1] + (places[chosen, 1] - centre[1]) * (1 + 0.2 / radius)
            spread = _spread(wanted, heights[chosen], below + 0.05, height - 0.05)
            for event, y in zip(chosen, spread, strict=True):
                x = centre[0] + sign * (radius + 0.55)
                texts[event].set(x=x, y=y, ha="left" if sign > 0 else "right")
                # First away from the circle, so that the line crosses no other node.
                ray = (places[event] - centre) / radius
                path = [places[event] + ray * (diameters[event] / 144 + d) for d in (0.02, 0.12)]
                path += [(x - sign * 0.2, y), (x - sign * 0.05, y)]
                axes.plot(*np.transpose(path), color=INK, alpha=0.4, lw=0.6, zorder=1)
        _arrows(axes, explanation, places, diameters)
        _legend(figure, axes, explanation, diameter, colours, width, height)
    return figure


def _arrows(axes, explanation: Explanation, places: np.ndarray, diameters: np.ndarray) -> None:
    from matplotlib.patches import FancyArrowPatch

    values = explanation.edge_contributions
    strongest = [pair for pair in explanation.relations()[:SHOWN_RELATIONS] if values[pair]]
    for i, j in reversed(strongest):  # the strongest on top
        width = 0.6 + 3 * abs(values[i, j] / values[strongest[0]])
        axes.add_patch(
            FancyArrowPatch(
                places[j],
                places[i],
                # To the right of its own direction: i to j and j to i lie apart.
                connectionstyle="arc3,rad=0.18",
                arrowstyle=f"-|>,head_length={3 + width},head_width={1.5 + 0.6 * width}",
                shrinkA=diameters[j] / 2 + 1,
                shrinkB=diameters[i] / 2 + 1,
                mutation_scale=1,
                lw=width,
                color=ADDS if values[i, j] > 0 else TAKES,
                alpha=0.85,
                zorder=2,
            )
        )


def _legend(figure, axes, explanation, diameter, colours, width, height) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=ADDS, lw=2.5, label="relation adds"),
        Line2D([], [], color=TAKES, lw=2.5, label="relation takes"),
    ]
    for probability in (0.1, 0.9):
        size = diameter * math.sqrt(0.1 + 0.9 * probability)
        handles.append(
            Line2D(
                [],
                [],
                ls="",
                marker="o",
                ms=size,
                mfc="none",
                mec=INK,
                label=f"event probability {probability}",
            )
        )
    middle = width / 2
    axes.legend(
        handles=handles,
        loc="center right",
        bbox_to_anchor=(middle + 0.55, 0.48),
        bbox_transform=axes.transData,
        ncols=2,
        fontsize=8,
        borderpad=0,
        handletextpad=1.2,
        columnspacing=1.2,
        labelspacing=1.9,
    )
    bar = figure.add_axes(((middle + 0.85) / width, 0.42 / height, 1.9 / width, 0.11 / height))
    figure.colorbar(colours, cax=bar, orientation="horizontal")
    bar.axvline(0, color=INK, lw=1)
    bar.locator_params(nbins=5)
    bar.tick_params(labelsize=8, length=2)
    bar.set_title("event adds (nats)", fontsize=8, pad=3)


def _neighbours(contributions: np.ndarray) -> np.ndarray:
    """An order (n,) for the circle: after each event the one most strongly related to it."""
    strength = np.abs(contributions) + np.abs(contributions).T
    np.fill_diagonal(strength, 0)
    order = [int(strength.sum(axis=1).argmax())]
    while len(order) < len(strength):
        rest = [i for i in range(len(strength)) if i not in order]
        order.append(rest[int(strength[order[-1], rest].argmax())])
    return np.array(order)


def _spread(wanted: np.ndarray, heights: np.ndarray, low: float, high: float) -> np.ndarray:
    """Heights of labels' centres (k,), from above, near `wanted` and none upon another.

    Pushed down from above where they are too near, then up again from below.
    """
    found = wanted.copy()
    ceiling = high
    for k in range(len(found)):
        found[k] = min(found[k], ceiling - heights[k] / 2)
        ceiling = found[k] - heights[k] / 2
    floor = low
    for k in reversed(range(len(found))):
        found[k] = max(found[k], floor + heights[k] / 2)
        floor = found[k] + heights[k] / 2
    return found


def timeline(explanation: Explanation, front_end: FrontEnd) -> Figure:
    """The window's log-mel spectrogram and, below it, its most probable events along time."""
    opened = explanation.opened
    log_mel = opened.log_mel * front_end.decibels
    seconds = len(explanation.waveform) / explanation.sample_rate
    frame = front_end.hop / front_end.sample_rate  # seconds
    middle = front_end.span / 2 / front_end.sample_rate if front_end.frames == "inside" else 0.0
    loudest = opened.event_times.max(axis=1)
    shown = np.argsort(-loudest, kind="stable")[:SHOWN_EVENTS]
    with _style():
        figure = _figure(7.4, 2.9 + 0.2 * len(shown))
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 0.2 * len(shown) + 0.1))
        image = above.imshow(
            log_mel.T,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=max(log_mel.min(), log_mel.max() - 80),
            extent=(
                middle - frame / 2,
                middle + (len(log_mel) - 0.5) * frame,
                -0.5,
                front_end.n_mels - 0.5,
            ),
        )
        hertz = librosa.mel_frequencies(
            front_end.n_mels + 2, fmin=front_end.fmin, fmax=front_end.fmax
        )[1:-1]  # the filters' centres
        marked = [x for x in MARKED_HERTZ if hertz[0] <= x <= hertz[-1]]
        above.set_yticks(np.interp(marked, hertz, np.arange(len(hertz))), marked)
        above.set_ylabel("mel band (Hz)")
        figure.colorbar(image, ax=above, label="dB", pad=0.01)
        step = token_frames(len(log_mel), opened.event_times.shape[1]) * frame
        image = below.imshow(
            opened.event_times[shown],
            aspect="auto",
            cmap="viridis",
            vmin=0,
            vmax=1,
            interpolation="nearest",
            extent=(0, opened.event_times.shape[1] * step, len(shown) - 0.5, -0.5),
        )
        below.set_yticks(range(len(shown)), [label(explanation.events[i]) for i in shown])
        below.set_xlabel("seconds of the window")
        below.set_xlim(0, seconds)
        figure.colorbar(image, ax=below, label="probability", pad=0.01)
    return figure


def token_frames(frames: int, tokens: int) -> float:
    """Spectrogram frames that a token stands for: the encoder halves time, rounding down."""
    if tokens == 1:
        return frames
    return next((2**k for k in range(12) if frames // 2**k == tokens), frames / tokens)


def curves(explanation: Explanation) -> Figure:
    """Deletion and insertion of events and of edges: the scene's log-odds by the share of them."""
    with _style():
        figure = _figure(7.4, 5.4)
        rows = figure.subplots(2, 2, sharey="row")
        for row, each in zip(
            rows, (explanation.event_curves, explanation.edge_curves), strict=True
        ):
            _pair(row, each)
        figure.legend(handles=rows[0, 0].lines[:3], loc="outside upper center", ncols=3)
    return figure


def _pair(row: np.ndarray, each: Curves) -> None:
    looks = {
        "explanation": ("in the order of the explanation", ADDS, "-"),
        "random": ("in random orders (mean)", "#8a8f98", "--"),
        "reverse": ("in the reverse order", TAKES, ":"),
    }
    for axes, lines, what in zip(
        row, (each.delete, each.insert), ("removed", "put into an empty graph"), strict=True
    ):
        for name, (text, colour, style) in looks.items():
            axes.plot(100 * each.shares, lines[name], style, color=colour, label=text)
        low, high = axes.get_ylim()
        if low < 0 < high:
            axes.axhline(0, color=INK, lw=0.5, alpha=0.5)
        axes.set_title(f"{each.what} {what}")
        axes.set_xlabel(f"% of {each.what}")
    row[0].set_ylabel("log-odds (nats)")


def _figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _bar(figure, shown, axes, text: str) -> None:
    """A colour bar with its zero marked, where it has one."""
    inches = axes.get_position().width * figure.get_figwidth()
    bar = figure.colorbar(
        shown, cax=axes.inset_axes((1 + 0.1 / inches, 0, 0.15 / inches, 1)), label=text
    )
    if shown.norm.vmin <= 0 <= shown.norm.vmax:
        bar.ax.axhline(0, color=INK, lw=1.2)
