"""Pictures of an Explanation: matrices, graph, curves. Each function returns a Figure.

strips.py has those over time. Shapes: n events. Import these modules where they are used:
Matplotlib creates directories in the user's home.
"""

import io
import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D

from ergl_jax.inference.activity import DETECTED
from ergl_jax.inference.explanation import Explanation
from ergl_jax.inference.narrative import plain

INK = "#1b1f24"  # text and lines; the page replaces it by its own text colour
PAPER = "#fefefe"  # behind nodes, so that no arrow shows through; in the page its background
POSITIVE, NEGATIVE = "#c8374a", "#3b78c4"  # readable on white and on black
GREY = "#8a8f98"
# From NEGATIVE to POSITIVE, transparent at zero: it suits a white page and a dark one.
DIVERGING = ListedColormap(
    [(*to_rgb(POSITIVE if x > 0 else NEGATIVE), abs(x)) for x in np.linspace(-1, 1, 255)]
)
MAX_RELATIONS = 12  # drawn as arrows
WIDTH = 4.6  # inches, of the pictures on the page: a phone shows their text at 9 pixels or more
LINE = 0.16  # inches, a line of text
CHARACTER = 0.0085  # inches, the width of a character of one point
FAINT = 0.35  # opacity of what is not detected
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


def inline_svg(figure: Figure, name: str) -> Markup:
    """A picture inside a page: in its text colour, with ids that start with `name`.

    The element around it needs an alternative text.
    """
    text = svg(figure)
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\1{name}-", text)
    text = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true">', text)
    # `--body-background-fill` is Gradio's.
    text = text.replace(PAPER, "var(--surface, var(--body-background-fill))")
    return Markup(text.replace(INK, "currentColor"))


def label(name: str, width: int = 60, *, longest: int = 60) -> str:
    """A name to draw: cut to `longest` characters, wrapped at `width`, no mathematics in it."""
    name = " ".join(name.split())
    name = name if len(name) <= longest else name[: longest - 1] + "…"
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
    figure = Figure(figsize=(2 * panel + margin + 3.2, panel + margin + 0.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    lags = explanation.lags
    left.set_title("largest correlations" if lags else "mean over an edge's channels")
    scale: Any = {"cmap": DIVERGING, "vmin": -1, "vmax": 1} if lags else {"cmap": "viridis"}
    image = left.imshow(explanation.activations.edge_strengths, **scale)
    _colour_bar(image, left, "correlation" if lags else "mean edge")
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
    bar: Any = axes.figure.colorbar(image, cax=axes.inset_axes((1.03, 0, 0.05, 1)), label=text)
    bar.solids.set_rasterized(True)  # else seams show between its transparent colours
    if image.norm.vmin <= 0 <= image.norm.vmax:
        bar.ax.axhline(0, color=INK, lw=1.2)


@rc_context(STYLE)
def graph(explanation: Explanation) -> Figure:
    """Events around an ellipse and the strongest relations between them, as arrows.

    A node's area is its event's presence (`Activations.presence`), its colour the event's
    contribution; nodes of events that are not detected are faint. An arrow's width is the size of
    its relation's contribution.
    """
    presence = explanation.activations.presence
    names = [label(name, 14) for name in explanation.events]
    room = np.array([1.9 + name.count("\n") for name in names])  # lines, with the gap between two
    margin = CHARACTER * 9 * max(len(line) for name in names for line in name.splitlines())
    radius = WIDTH / 2 - margin - 0.3  # inches, as all lengths here; of the ellipse, sideways
    order = _strongest_neighbours(explanation.edge_contributions)
    # Clockwise from above: the first half of the events is on the right.
    right = (len(names) + 1) // 2
    sides = {1: order[:right], -1: order[right:][::-1]}
    height = max(3.0, *(LINE * room[events].sum() for events in sides.values()))
    places = np.empty((len(names), 2))
    for side, events in sides.items():
        # Nodes are at the heights of their labels.
        share = (room[events].cumsum() - room[events] / 2) / room[events].sum()  # from above
        places[events] = np.stack([2 * side * radius * np.sqrt(share - share**2), 0.5 - share], 1)
    places[:, 1] *= height
    diameters, opacity = _size(presence), _opacity(presence)
    limit = np.abs(explanation.node_contributions).max() or 1.0
    colours = ScalarMappable(Normalize(-limit, limit), DIVERGING)
    face = colours.to_rgba(explanation.node_contributions)
    face[:, 3] *= opacity

    below = 1.45  # for the legend and the scale
    figure = Figure(figsize=(WIDTH, height + below))
    axes = figure.add_axes((0, below / (height + below), 1, height / (height + below)))
    axes.axis("off")
    axes.set(xlim=(-WIDTH / 2, WIDTH / 2), ylim=(-height / 2, height / 2))
    edge = [(*to_rgb(INK), x) for x in opacity]
    marks: Any = {"s": diameters**2, "c": face, "edgecolors": edge, "linewidths": 0.8, "zorder": 3}
    axes.scatter(places[:, 0], places[:, 1], **marks)
    axes.scatter(places[:, 0], places[:, 1], s=diameters**2, c=PAPER, linewidths=0, zorder=2.5)
    line: Any = {"arrowstyle": "-", "shrinkA": 2, "color": INK, "alpha": 0.4, "lw": 0.6}
    for event, (x, y) in enumerate(places):
        side = 1 if event in sides[1] else -1
        axes.annotate(
            names[event],
            (x, y),
            (side * (radius + 0.25), y),
            ha="left" if side > 0 else "right",
            va="center",
            alpha=0.4 + 0.6 * opacity[event],
            linespacing=1,
            arrowprops=line | {"shrinkB": diameters[event] / 2},
        )
    _draw_arrows(axes, explanation, places, diameters / 2)
    measure = "presence" if explanation.lags else "probability"
    _draw_legend(figure, colours, measure, (height + below) / 0.15)
    return figure


def _size(presence: Any) -> Any:
    """A node's diameter in points."""
    return np.sqrt(350 * (0.1 + 0.9 * presence))


def _opacity(presence: Any) -> Any:
    return FAINT + (1 - FAINT) * np.minimum(1, presence / DETECTED)


def _draw_legend(figure: Figure, colours: ScalarMappable, measure: str, rows: float) -> None:
    """Below the graph; `rows` is the figure's height in 0.15 inches."""
    circle: Any = {"ls": "", "marker": "o", "mfc": "none", "mec": INK}
    handles = {
        "raises the log-odds": Line2D([], [], color=POSITIVE, lw=2.5),
        "lowers them": Line2D([], [], color=NEGATIVE, lw=2.5),
        f"{measure} 0.1, not detected": Line2D(
            [], [], ms=_size(0.1), **circle, alpha=_opacity(0.1)
        ),
        f"{measure} 0.9": Line2D([], [], ms=_size(0.9), **circle),
    }
    place: Any = {"loc": "lower center", "bbox_to_anchor": (0.5, 4 / rows), "ncols": 2}
    figure.legend(list(handles.values()), list(handles), labelspacing=0.9, **place)
    scale = figure.add_axes((0.2, 2.9 / rows, 0.6, 0.8 / rows))
    bar: Any = figure.colorbar(
        colours, cax=scale, orientation="horizontal", label="contribution of event (nats)"
    )
    bar.solids.set_rasterized(True)
    bar.ax.axvline(0, color=INK, lw=1)


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
def curves(explanation: Explanation) -> Figure:
    """Log-odds of the scene while events and edges are deleted and inserted."""
    orders = {
        "explanation": ("in the order of the explanation", POSITIVE, "-"),
        "random": ("in random orders (mean)", GREY, "--"),
        "reverse": ("in reverse order", NEGATIVE, ":"),
    }
    figure = Figure(figsize=(WIDTH, 5), layout="constrained")
    rows = figure.subplots(2, 2, sharey="row")
    for row, each in zip(rows, (explanation.event_curves, explanation.edge_curves), strict=True):
        panels = zip(row, (each.delete, each.insert), ("deleted", "inserted"), strict=True)
        for axes, lines, verb in panels:
            for order, (text, colour, style) in orders.items():
                axes.plot(100 * each.shares, lines[order], style, color=colour, label=text)
            axes.set(title=f"{each.what} {verb}", xlabel=f"% of {each.what}")
        row[0].set_ylabel("log-odds (nats)")
    figure.legend(handles=rows[0, 0].lines[:3], loc="outside upper center")
    return figure
