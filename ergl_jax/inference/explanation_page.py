"""Writes an Explanation: a self-contained HTML page, pictures, JSON and GraphML."""

import json
from pathlib import Path

import networkx
import numpy as np
from matplotlib.figure import Figure

from ergl_jax.bundle import Bundle
from ergl_jax.files import atomic_write_together, make_directory
from ergl_jax.inference import html_page, lag_pictures, narrative, pictures, strips
from ergl_jax.inference.explanation import Explanation

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
    """All pictures by name; "relations" only if the dynamic event graph has some that count."""
    figures = {
        "matrix": pictures.matrix(explanation),
        "graph": pictures.graph(explanation),
        "timeline": strips.timeline(explanation, bundle.front_end),
        "curves": pictures.curves(explanation),
    }
    if explanation.pairs():
        strongest = lag_pictures.strongest_relations(explanation, bundle.front_end)
        figures["relations"] = strongest
    return figures


def to_networkx(explanation: Explanation) -> networkx.DiGraph:
    """The graph, with edges from sender to receiver and no self-loops.

    Nodes are indices into `explanation.events` with a label and the numbers of `event_numbers`;
    edges have those of `edge_numbers`.
    """
    e = explanation
    graph = networkx.DiGraph(scene=html_page.printable(e.scenes[e.scene]))
    for i, name in enumerate(e.events):
        graph.add_node(i, label=html_page.printable(name), **e.event_numbers(i))
    for i, j in np.ndindex(e.edge_contributions.shape):
        if i != j:
            graph.add_edge(j, i, **e.edge_numbers(i, j))
    return graph


def render(explanation: Explanation, figures: dict[str, Figure], bundle: Bundle) -> str:
    """The page, with pictures, audio and script inside."""
    e, numbers = explanation, explanation.to_dict()
    shown = figures.keys() - {"matrix"}  # the page has its own
    inline = {name: pictures.inline_svg(figures[name], name) for name in shown}
    timeline = figures["timeline"].axes[0].get_position()  # final, since it is drawn by now
    strengths = ("edge_correlations", "edge_lags") if e.lags else ("edge_means",)
    data = {name: numbers[name] for name in ("events", "edge_contributions", *strengths)}
    scene, detected, trust, counterfactual = narrative.sentences(e)
    return html_page.render(
        PAGE,
        ("matrix.js", "explanation.js"),
        e=e,
        bundle=bundle,
        file=html_page.printable(Path(e.classification.name).name) or "samples",
        scene=scene,
        detected=detected,
        trust=trust,
        events_ranked=e.is_exact or e.event_curves.is_better_than_chance,
        relations_ranked=e.is_exact or e.edge_curves.is_better_than_chance,
        relations=narrative.relations(e) if e.lags else "",
        pairs=[(narrative.in_time(each, e.events), each) for each in e.pairs()[:MAX_RELATIONS]],
        unknown=narrative.unknown(e),
        notes=e.classification.notes,
        calibration=bundle.about_probabilities,
        counterfactual=counterfactual,
        without_relations=narrative.without_relations(e),
        window=e.classification.timeline[e.window],
        numbers=numbers,
        measured=("share", "presence") if e.lags else ("probability",),
        max_relations=MAX_RELATIONS,
        pictures=inline,
        audio=html_page.audio(e.sound, e.sample_rate),
        data=data
        | {
            "seconds": len(e.sound) / e.sample_rate,
            "left": timeline.x0,
            "right": timeline.x1,
        },
    )
