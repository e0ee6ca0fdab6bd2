"""An explanation of the dynamic event graph: its sentences, numbers, pictures and page."""

import dataclasses
import json
import re

import jax
import networkx
import numpy as np
import pytest
from made_explanations import FILES, FRONT_END, PICTURES, bundle, dynamic

from ergl_jax.inference import explanation_page, lag_pictures, narrative, pictures
from ergl_jax.inference.contributions import GraphReader
from ergl_jax.models.dynamic import LAGS, SumReadout

EVENTS = ("Bell", "Dog", "Rain", "Siren")


@pytest.fixture(scope="module")
def one():
    return dynamic(events=EVENTS)


@pytest.fixture(scope="module")
def path(one, tmp_path_factory):
    return explanation_page.write(one, bundle(), tmp_path_factory.mktemp("explained"))


def test_contributions_add_up_exactly():
    """With the bias: to the scene's logit minus the mean of the others', by their probabilities."""
    n, scenes, rng = 4, 3, np.random.default_rng(0)
    nodes, edges = rng.normal(size=(n, 2)), rng.normal(size=(n, n, len(LAGS)))
    nodes, edges = np.float32(nodes), np.float32(edges)
    readout = SumReadout(scenes)
    shapes = jax.eval_shape(readout.init, jax.random.key(0), nodes[None], edges[None])
    variables = jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape) / 5), shapes)
    reader = GraphReader(lambda *graph: readout.apply(variables, *graph))
    logits = readout.apply(variables, nodes[None], edges[None])[0]
    for scene in range(scenes):
        others = np.arange(scenes) != scene
        weights = np.where(others, np.exp(logits), 0)
        weights = np.eye(scenes)[scene] - weights / weights.sum()
        found = sum(each.sum() for each in reader.contributions(nodes, edges, scene))
        bias = weights @ variables["params"]["nodes"]["bias"]
        assert found + bias == pytest.approx(float(weights @ logits), abs=1e-4)


def test_the_sentences_name_the_pairs_that_count(one):
    first, second = one.pairs()
    assert (first.events, second.events) == ((0, 1), (1, 2))
    assert (first.contribution, second.contribution) == (0.75, -0.125)
    text = narrative.paragraph(one)
    assert narrative.EXACT in text and "chance" not in text
    assert narrative.in_time(first, EVENTS) in text and "contribution +0.75 nats)" in text
    assert text.index("+0.75 nats") < text.index("contribution −0.12 nats)")


def test_without_a_relation_that_counts():
    none = dataclasses.replace(dynamic(events=EVENTS), edge_contributions=np.zeros((4, 4)))
    assert narrative.relations(none) == "No relation of events counts here."
    assert none.pairs() == none.relations() == []
    figures = explanation_page.draw(none, bundle())
    assert set(figures) == set(PICTURES)
    assert "No relation of events counts here." in explanation_page.render(none, figures, bundle())


def test_events_are_heard_for_a_share_of_the_time(one):
    order = np.argsort(-one.activations.event_times.mean(axis=1))
    shares = one.activations.event_times.mean(axis=1)[order]
    found = re.findall(r"“(\w+)” \((\d+) %\)", narrative.sentences(one)[1])
    assert [name for name, _ in found] == [EVENTS[i] for i in order]
    np.testing.assert_allclose([float(x) for _, x in found], 100 * shares, atol=0.51)


def test_numbers_in_json_and_graphml(one, path):
    numbers = json.loads((path.parent / "explanation.json").read_text())
    edges = one.activations.edges
    relations = {(each["from"], each["to"]): each for each in numbers["relations"]}
    assert set(relations) == {("Bell", "Dog"), ("Dog", "Bell"), ("Dog", "Rain")}
    graph = networkx.read_graphml(path.parent / "graph.graphml", node_type=int)
    for (sender, receiver), each in relations.items():
        i, j = EVENTS.index(receiver), EVENTS.index(sender)
        assert each["correlation"] == max(edges[i, j], key=abs)
        assert edges[i, j, LAGS.index(each["lag"])] == each["correlation"]
        drawn = graph.edges[j, i]
        assert {name: each[name] for name in ("contribution", "correlation", "lag")} == drawn
    assert numbers["edge_correlations"][1][0] == relations["Bell", "Dog"]["correlation"]
    assert numbers["edge_lags"][1][0] == relations["Bell", "Dog"]["lag"]
    first = numbers["pairs"][0]
    assert first["events"] == ["Bell", "Dog"] and first["contribution"] == 0.75
    assert len(first["lags"]) == len(first["correlations"]) == 2 * len(LAGS) - 1


def test_an_event_that_sounds_briefly_is_present(one, path):
    """The graph's nodes, the table and the numbers have its presence, not its share of the time."""
    nodes = np.array([[0.06, 1.0], [0.5, 1.0], [0.02, 0.1], [0.0, 0.0]])
    brief = dataclasses.replace(one, activations=dataclasses.replace(one.activations, nodes=nodes))
    drawn = pictures.graph(brief)
    sizes, opacity = (
        drawn.axes[0].collections[0].get_sizes(),
        drawn.axes[0].collections[0].get_edgecolors()[:, 3],
    )
    assert sizes[0] == sizes[1] > sizes[2] > sizes[3]
    assert opacity[0] == opacity[1] == 1 > opacity[2] > opacity[3]
    labels = {text.get_text() for text in drawn.legends[0].get_texts()}
    assert {"presence 0.9", "presence 0.1, not detected"} < labels
    for each, (share, presence) in zip(brief.to_dict()["events"], nodes, strict=True):
        assert (each["share"], each["presence"]) == (share, presence)
        assert "probability" not in each
    text = path.read_text()
    assert '<th scope="col">share</th><th scope="col">presence</th>' in text
    first = max(one.to_dict()["events"], key=lambda each: each["share"])
    row = text[text.index("presence</th>") :].split("<td>")[1:3]
    assert [cell.split("<")[0] for cell in row] == [
        f"{first[name]:.2f}" for name in ("share", "presence")
    ]


def test_the_picture_shows_activities_and_correlations(one):
    figure = lag_pictures.strongest_relations(one, FRONT_END)
    pairs = one.pairs()
    assert len(figure.axes) == 3 * len(pairs)
    for k, pair in enumerate(pairs):
        upper, curve, lower = figure.axes[3 * k : 3 * k + 3]
        for axes, event in zip((upper, lower), pair.events, strict=True):
            (steps,) = axes.patches
            np.testing.assert_array_equal(
                steps.get_data().values, one.activations.event_times[event]
            )
        np.testing.assert_array_equal(curve.lines[2].get_ydata(), pair.correlations)
        assert curve.lines[3].get_ydata() == [pair.correlation]


def test_the_page(one, path):
    text = path.read_text()
    names = {each.name for each in path.parent.iterdir()}
    assert names == FILES | {"relations.png", "relations.svg"}
    assert text.count("<svg") == 4 and "mean edge" not in text.split("<script")[0]
    for each in one.pairs():
        assert narrative.in_time(each, EVENTS) in text
    assert "folded" not in text and "Dynamic event graph, 4 events" in text
