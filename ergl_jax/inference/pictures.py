"""Pictures of an Explanation: matrices, graph, timeline, curves. Each function returns a Figure.

Shapes: n events, T tokens, F frames, M mel bins. Import this module where it is used: Matplotlib
creates directories in the user's home.
"""

import io
import textwrap
from pathlib import Path
from typing import Any

import librosa
import numpy as np
from matplotlib import rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D

from ergl_jax.audio import FrontEnd
from ergl_jax.inference.explain import Explanation
from ergl_jax.inference.narrative import plain

INK = "#1b1f24"  # text and lines; the page replaces it by its own text colour
POSITIVE, NEGATIVE = "#c8374a", "#3b78c4"  # readable on white and on black
DIVERGING = "RdBu_r"
MAX_RELATIONS = 12  # drawn as arrows
MAX_EVENTS = 12  # drawn along time
CHARACTER = 0.0085  # inches, the width of a character of one point
MEL_TICKS = (200, 500, 1000, 2000, 5000, 10000)  # Hz
STYLE: Any = {
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.edgecolor": INK,
    "legend.frameon": False,
    "font.size": 9,
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "ergl",  # reproducible files
}


@rc_context(STYLE)
def save(figure: Figure, path: Path) -> None:
    """Writes a PNG or an SVG, by the path's suffix, on white."""
    undated = {"Date": None} if path.suffix == ".svg" else {}
    figure.savefig(path, dpi=140, metadata=undated)


@rc_context(STYLE)
def svg(figure: Figure) -> str:
    """The figure as SVG without a background."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def label(name: str, width: int = 60) -> str:
    """A name to draw: at most 60 characters, wrapped at `width`, never parsed as mathematics."""
    name = " ".join(name.split())
    name = name if len(name) <= 60 else name[:59] + "…"
    font = get_font(findfont(FontProperties()))
    # Matplotlib warns of characters that its font lacks.
    name = "".join(c if font.get_char_index(ord(c)) else "\ufffd" for c in name)
    return textwrap.fill(name, width).replace("$", r"\$")


@rc_context(STYLE)
def matrix(explanation: Explanation) -> Figure:
    """Mean edges and contributions of relations, (n, n) each: rows receive, columns send."""
    n, scene = len(explanation.events), plain(explanation.scenes[explanation.scene])
    names = [label(name) for name in explanation.events]
    cell, font = (0.26, 9) if n <= 30 else (0.17, 7.5)  # inches, points
    panel = max(3.2, cell * n)
    margin = CHARACTER * font * max(map(len, names))
    contributions = explanation.edge_contributions
    limit = np.abs(contributions).max() or 1.0
    figure = Figure(figsize=(2 * panel + margin + 3.2, panel + margin + 0.8))
    left, right = figure.subplots(1, 2, sharey=True)
    left.set_title("mean over an edge's channels")
    image = left.imshow(explanation.edge_means, cmap="viridis")
    _colour_bar(image, left, "mean edge")
    right.set_title(f"contributions to {label(scene)}")
    image = right.imshow(contributions, cmap=DIVERGING, vmin=-limit, vmax=limit)
    _colour_bar(image, right, "contribution (nats)")
    for axes in (left, right):
        axes.set_xticks(range(n), names, rotation=90, fontsize=font)
        axes.set_yticks(range(n), names, fontsize=font)
        axes.tick_params(length=2)
        axes.set_xlabel("from this event")
    left.set_ylabel("to this event")
    return figure


def _colour_bar(image, axes, text: str) -> None:
    """As high as the image, with a line at zero if the scale has one."""
    bar = axes.figure.colorbar(image, cax=axes.inset_axes((1.03, 0, 0.05, 1)), label=text)
    if image.norm.vmin <= 0 <= image.norm.vmax:
        bar.ax.axhline(0, color=INK, lw=1.2)


@rc_context(STYLE)
def graph(explanation: Explanation) -> Figure:
    """Events on a circle and the strongest relations between them, as arrows.

    A node's area is its event's probability, its colour the event's contribution; an arrow's width
    is the size of its relation's contribution.
    """
    names = [label(name, 30) for name in explanation.events]
    n = len(names)
    radius = max(1.7, n / 16)  # inches: two labels of two lines each don't overlap
    margin = CHARACTER * 9 * max(len(line) for name in names for line in name.splitlines())
    order = _strongest_neighbours(explanation.edge_contributions)
    # Clockwise from above: the first half of the events is on the right.
    angles = np.pi / 2 - 2 * np.pi * (np.arange(n) + 0.5) / n
    places = np.empty((n, 2))
    places[order] = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    largest = min(350.0, (0.6 * 72 * 2 * np.pi * radius / n) ** 2)  # points²
    areas = largest * (0.1 + 0.9 * np.clip(explanation.activations.event_probabilities, 0, 1))
    radii = np.sqrt(areas) / 2  # points
    limit = np.abs(explanation.node_contributions).max() or 1.0
    colours = ScalarMappable(Normalize(-limit, limit), DIVERGING)
    figure = Figure(figsize=(2.9 * radius + 2 * margin + 1.2, 2.5 * radius + 0.5))
    axes = figure.subplots()
    axes.axis("off")
    axes.set(aspect="equal", xlim=(-1.45, 1.45), ylim=(-1.25, 1.25))
    face = colours.to_rgba(explanation.node_contributions)
    axes.scatter(
        places[:, 0], places[:, 1], s=areas, c=face, edgecolors=INK, linewidths=0.8, zorder=3
    )
    right = (n + 1) // 2
    for side, events in ((1, order[:right]), (-1, order[right:][::-1])):
        heights = 1.2 - 2.4 * (np.arange(len(events)) + 0.5) / len(events)
        for event, height in zip(events, heights, strict=True):
            axes.annotate(
                names[event],
                places[event],
                (1.4 * side, height),
                ha="left" if side > 0 else "right",
                va="center",
                linespacing=1,
                arrowprops={"arrowstyle": "-", "color": INK, "alpha": 0.4, "lw": 0.6},
            )
    _draw_arrows(axes, explanation, places, radii)
    lines = [Line2D([], [], color=colour, lw=2.5) for colour in (POSITIVE, NEGATIVE)]
    circle: Any = {"ls": "", "marker": "o", "mfc": "none", "mec": INK}
    sizes = [np.sqrt(largest * (0.1 + 0.9 * p)) for p in (0.1, 0.9)]
    circles = [Line2D([], [], ms=size, **circle) for size in sizes]
    texts = ["raises the log-odds", "lowers them", "event probability 0.1", "0.9"]
    figure.legend(lines + circles, texts, loc="outside lower center", ncols=4)
    bar = figure.colorbar(colours, ax=axes, shrink=0.5, label="contribution of event (nats)")
    bar.ax.axhline(0, color=INK, lw=1)
    return figure


def _strongest_neighbours(contributions: np.ndarray) -> np.ndarray:
    """An order (n,) for the circle: after each event the one most strongly related to it."""
    strength = np.abs(contributions) + np.abs(contributions).T
    np.fill_diagonal(strength, 0)
    order = [int(strength.sum(axis=1).argmax())]
    while len(order) < len(strength):
        rest = [i for i in range(len(strength)) if i not in order]
        order.append(rest[int(strength[order[-1], rest].argmax())])
    return np.array(order)


def _draw_arrows(axes, explanation: Explanation, places: np.ndarray, radii: np.ndarray) -> None:
    """Arrows from sender to receiver, the strongest on top."""
    values = explanation.edge_contributions
    strongest = [pair for pair in explanation.relations()[:MAX_RELATIONS] if values[pair]]
    for i, j in reversed(strongest):
        width = 0.6 + 3 * abs(values[i, j] / values[strongest[0]])
        arrow = {
            "connectionstyle": "arc3,rad=0.18",  # curved, so that i -> j and j -> i don't overlap
            "arrowstyle": f"-|>,head_length={3 + width},head_width={1.5 + 0.6 * width}",
            "mutation_scale": 1,
            "shrinkA": radii[j] + 1,
            "shrinkB": radii[i] + 1,
            "lw": width,
            "color": POSITIVE if values[i, j] > 0 else NEGATIVE,
            "alpha": 0.85,
        }
        axes.annotate("", places[i], places[j], arrowprops=arrow, zorder=2)


@rc_context(STYLE)
def timeline(explanation: Explanation, front_end: FrontEnd) -> Figure:
    """The window's log-mel spectrogram and, below it, its most probable events along time."""
    times = explanation.activations.event_times
    log_mel = explanation.activations.log_mel * front_end.decibels
    frame = front_end.hop / front_end.sample_rate  # seconds
    middle = front_end.span / 2 / front_end.sample_rate if front_end.frames == "inside" else 0.0
    shown = np.argsort(-times.max(axis=1), kind="stable")[:MAX_EVENTS]
    figure = Figure(figsize=(7.4, 2.9 + 0.2 * len(shown)))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 0.2 * len(shown) + 0.1))
    first, last = middle - frame / 2, middle + (len(log_mel) - 0.5) * frame
    image = above.imshow(
        log_mel.T,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=max(log_mel.min(), log_mel.max() - 80),
        extent=(first, last, -0.5, front_end.n_mels - 0.5),
    )
    edges = librosa.mel_frequencies(front_end.n_mels + 2, fmin=front_end.fmin, fmax=front_end.fmax)
    centres = edges[1:-1]  # Hz, of the mel filters
    ticks = [x for x in MEL_TICKS if centres[0] <= x <= centres[-1]]
    above.set_yticks(np.interp(ticks, centres, np.arange(len(centres))), ticks)
    above.set_ylabel("mel band (Hz)")
    figure.colorbar(image, ax=above, label="dB", pad=0.01)
    tokens = times.shape[1]
    stop = tokens * frames_per_token(len(log_mel), tokens) * frame
    image = below.imshow(
        times[shown],
        aspect="auto",
        cmap="viridis",
        vmin=0,
        vmax=1,
        interpolation="nearest",
        extent=(0, stop, len(shown) - 0.5, -0.5),
    )
    below.set_yticks(range(len(shown)), [label(explanation.events[i]) for i in shown])
    below.set_xlabel("seconds of the window")
    below.set_xlim(0, len(explanation.waveform) / explanation.sample_rate)
    figure.colorbar(image, ax=below, label="probability", pad=0.01)
    return figure


def frames_per_token(frames: int, tokens: int) -> float:
    """Spectrogram frames of one token: the encoder halves time several times, rounding down."""
    if tokens == 1:
        return frames
    return next((2**k for k in range(12) if frames // 2**k == tokens), frames / tokens)


@rc_context(STYLE)
def curves(explanation: Explanation) -> Figure:
    """Log-odds of the scene while events and edges are deleted and inserted."""
    orders = {
        "explanation": ("in the order of the explanation", POSITIVE, "-"),
        "random": ("in random orders (mean)", "#8a8f98", "--"),
        "reverse": ("in reverse order", NEGATIVE, ":"),
    }
    figure = Figure(figsize=(7.4, 5.4))
    rows = figure.subplots(2, 2, sharey="row")
    for row, each in zip(rows, (explanation.event_curves, explanation.edge_curves), strict=True):
        panels = zip(row, (each.delete, each.insert), ("deleted", "inserted"), strict=True)
        for axes, lines, verb in panels:
            for order, (text, colour, style) in orders.items():
                axes.plot(100 * each.shares, lines[order], style, color=colour, label=text)
            axes.set(title=f"{each.what} {verb}", xlabel=f"% of {each.what}")
        row[0].set_ylabel("log-odds (nats)")
    figure.legend(handles=rows[0, 0].lines[:3], loc="outside upper center", ncols=3)
    return figure
