"""Writes an Explanation: a self-contained HTML page, pictures, JSON and GraphML."""

import base64
import io
import json
import re
from pathlib import Path

import networkx
import numpy as np
import soundfile
from markupsafe import Markup
from matplotlib.figure import Figure

from ergl_jax.bundle import Bundle
from ergl_jax.files import atomic_write_together, make_directory
from ergl_jax.inference import html_page, narrative, pictures
from ergl_jax.inference.explain import Explanation

PAGE = "explanation.html"
MAX_RELATIONS = 20  # in the page's table


def write(explanation: Explanation, bundle: Bundle, directory: Path) -> Path:
    """Writes all files or none, and returns the path of the page.

    Raises InputError if the directory can't be created or written to.
    """
    figures = draw(explanation, bundle)
    graphml = "\n".join(networkx.generate_graphml(to_networkx(explanation)))
    texts = {
        "explanation.json": json.dumps(explanation.to_dict(), indent=1),
        "graph.graphml": f'<?xml version="1.0" encoding="utf-8"?>\n{graphml}',
        PAGE: render(explanation, figures, bundle),
    }
    directory = make_directory(directory, "the directory")
    with atomic_write_together(directory) as tmp_path:
        for name, figure in figures.items():
            for kind in ("png", "svg"):
                pictures.save(figure, tmp_path / f"{name}.{kind}")
        for name, text in texts.items():
            (tmp_path / name).write_text(text + "\n", encoding="utf-8")
    return directory / PAGE


def draw(explanation: Explanation, bundle: Bundle) -> dict[str, Figure]:
    """All pictures by name."""
    return {
        "matrix": pictures.matrix(explanation),
        "graph": pictures.graph(explanation),
        "timeline": pictures.timeline(explanation, bundle.front_end),
        "curves": pictures.curves(explanation),
    }


def to_networkx(explanation: Explanation) -> networkx.DiGraph:
    """The graph, with edges from sender to receiver and no self-loops.

    Nodes are indices into `explanation.events` with label, probability and contribution; edges have
    contribution and mean_edge.
    """
    e = explanation
    graph = networkx.DiGraph(scene=html_page.printable(e.scenes[e.scene]))
    means = e.edge_means
    for i, name in enumerate(e.events):
        graph.add_node(
            i,
            label=html_page.printable(name),
            probability=float(e.activations.event_probabilities[i]),
            contribution=float(e.node_contributions[i]),
        )
    for i, j in np.ndindex(means.shape):
        if i != j:
            contribution = float(e.edge_contributions[i, j])
            graph.add_edge(j, i, contribution=contribution, mean_edge=float(means[i, j]))
    return graph


def render(explanation: Explanation, figures: dict[str, Figure], bundle: Bundle) -> str:
    """The page, with pictures, audio and script inside."""
    e, numbers = explanation, explanation.to_dict()
    inline = {name: _inline_svg(figures[name], name) for name in ("timeline", "graph", "curves")}
    timeline = figures["timeline"].axes[0].get_position()  # final, since it is drawn by now
    data = {name: numbers[name] for name in ("events", "edge_contributions", "edge_means")}
    return html_page.render(
        PAGE,
        ("matrix.js", "explanation.js"),
        e=e,
        bundle=bundle,
        file=html_page.printable(Path(e.classification.name).name) or "samples",
        paragraph=narrative.paragraph(e),
        counterfactual=narrative.counterfactual(e),
        without_relations=narrative.without_relations(e),
        window=e.classification.timeline[e.window],
        numbers=numbers,
        max_relations=MAX_RELATIONS,
        pictures=inline,
        inches={name: figures[name].get_figwidth() for name in inline},
        audio=_wav(e.waveform, e.sample_rate),
        data=data
        | {
            "seconds": len(e.waveform) / e.sample_rate,
            "left": timeline.x0,
            "right": timeline.x1,
        },
    )


def _inline_svg(figure: Figure, name: str) -> Markup:
    """A picture inside the page: in its text colour, with ids of its own, without comments."""
    text = pictures.svg(figure)
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\1{name}-", text)
    # The element around it has an alternative text.
    text = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true">', text)
    return Markup(text.replace(pictures.INK, "currentColor"))


def _wav(waveform: np.ndarray, sample_rate: int) -> str:
    """A waveform (L,) as a data URI: WAV, 16 bits."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(waveform, -1, 1), sample_rate, "PCM_16", format="WAV")
    return "data:audio/wav;base64," + base64.b64encode(buffer.getvalue()).decode()
