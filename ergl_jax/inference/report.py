"""An Explanation as files: a page that needs nothing else, pictures, numbers, and the graph."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import networkx
import numpy as np
import soundfile
from markupsafe import Markup

from ergl_jax.bundle import Bundle
from ergl_jax.files import atomic_write_together, make_directory
from ergl_jax.inference import narrative, pages, pictures
from ergl_jax.inference.explain import Explanation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "explanation.html"
LISTED_RELATIONS = 20


def write(explanation: Explanation, bundle: Bundle, directory: Path) -> Path:
    """Writes all files of an explanation and returns the path of the page.

    They are there together, or not at all. InputError where the directory can't be made or written
    to.
    """
    figures = draw(explanation, bundle)
    graphml = "\n".join(networkx.generate_graphml(to_networkx(explanation)))
    text = {
        "explanation.json": json.dumps(explanation.to_dict(), indent=1),
        "graph.graphml": f'<?xml version="1.0" encoding="utf-8"?>\n{graphml}',
        PAGE: page(explanation, bundle, figures),
    }
    directory = make_directory(directory, "the directory")
    with atomic_write_together(directory) as beside:
        for name, figure in figures.items():
            for kind in ("png", "svg"):
                pictures.save(figure, beside / f"{name}.{kind}")
        for name, content in text.items():
            (beside / name).write_text(content + "\n", encoding="utf-8")
    return directory / PAGE


def draw(explanation: Explanation, bundle: Bundle) -> dict[str, Figure]:
    """All pictures by name: matrix, graph, timeline, curves."""
    return {
        "matrix": pictures.matrix(explanation),
        "graph": pictures.graph(explanation),
        "timeline": pictures.timeline(explanation, bundle.front_end),
        "curves": pictures.curves(explanation),
    }


def to_networkx(explanation: Explanation) -> networkx.DiGraph:
    """The graph for networkx and its like: a node an event, edges from sender to receiver.

    Nodes are numbers, in the order of `explanation.events`, with label, probability and
    contribution; edges, of two different events each, have contribution and mean_edge.
    """
    graph = networkx.DiGraph(scene=pages.printable(explanation.scenes[explanation.scene]))
    means, values = explanation.edge_means, explanation.edge_contributions
    for i, name in enumerate(explanation.events):
        graph.add_node(
            i,
            label=pages.printable(name),
            probability=float(explanation.opened.event_probabilities[i]),
            contribution=float(explanation.node_contributions[i]),
        )
    for i, j in np.ndindex(values.shape):
        if i != j:
            graph.add_edge(j, i, contribution=float(values[i, j]), mean_edge=float(means[i, j]))
    return graph


def page(explanation: Explanation, bundle: Bundle, figures: dict[str, Figure]) -> str:
    """The page: one HTML file with pictures, sound and script inside, that asks for no other."""
    e = explanation
    values, means = e.edge_contributions, e.edge_means
    axes = figures["timeline"].axes[0].get_position()  # final, as it is drawn already
    window = e.classification.timeline[e.window]
    probabilities = e.opened.event_probabilities
    data = {
        "events": [pages.shown(name) for name in e.events],
        "contributions": pages.rounded(values),
        "means": pages.rounded(means),
        "seconds": len(e.waveform) / e.sample_rate,
        "left": axes.x0,
        "right": axes.x1,
    }
    inline = {name: _inline(figures[name], name) for name in ("timeline", "graph", "curves")}
    return pages.render(
        PAGE,
        ("matrix.js", "explanation.js"),
        e=e,
        bundle=bundle,
        file=pages.printable(Path(e.classification.name).name) or "samples",
        paragraph=narrative.paragraph(e),
        counterfactual=narrative.counterfactual(e),
        without_relations=narrative.without_relations(e),
        scene=narrative.plain(e.scenes[e.scene]),
        window=window,
        events=[
            (e.events[i], probabilities[i], e.node_contributions[i])
            for i in np.argsort(-probabilities, kind="stable")
        ],
        relations=[
            (e.events[j], e.events[i], values[i, j], means[i, j])
            for i, j in e.relations()[:LISTED_RELATIONS]
        ],
        pictures=inline,
        inches={name: figures[name].get_figwidth() for name in inline},
        audio=_wav(e.waveform, e.sample_rate),
        data=data,
    )


def _inline(figure: Figure, name: str) -> Markup:
    """A picture as SVG inside a page: in the page's ink, its ids its own, no comments."""
    text = pictures.svg(figure)
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\1{name}-", text)
    # Its alternative text stands on the element around it.
    text = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true">', text)
    return Markup(text.replace(pictures.INK, "currentColor"))


def _wav(waveform: np.ndarray, sample_rate: int) -> str:
    """A waveform (L,) as a data URI: WAV, 16 bits."""
    written = io.BytesIO()
    soundfile.write(written, np.clip(waveform, -1, 1), sample_rate, "PCM_16", format="WAV")
    return "data:audio/wav;base64," + base64.b64encode(written.getvalue()).decode()
