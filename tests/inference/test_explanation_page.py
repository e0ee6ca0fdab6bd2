"""The files of an explanation: a self-contained page, numbers, and a graph for other programs."""

import base64
import dataclasses
import html.parser
import io
import json
import re

import networkx
import numpy as np
import pytest
import soundfile
from made_explanations import FILES, bundle, curves, explanation

from ergl_jax.inference import explanation_page, narrative, pictures
from ergl_jax.inference.fidelity import Counterfactual


class Reader(html.parser.HTMLParser):
    """Elements of a well-formed page as (tag, attributes), and its text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in {"meta", "link", "input", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text += data


@pytest.fixture(scope="module")
def one():
    return explanation(
        5,
        counterfactual=Counterfactual((1,), 2, True),
        name="a/b/clip.wav",
        notes=("<i>note</i>",),
        waveform=np.float32([0.0, 0.5, -0.25, 1.5, -1.5] * 6400),
    )


@pytest.fixture(scope="module")
def path(one, tmp_path_factory):
    return explanation_page.write(one, bundle(), tmp_path_factory.mktemp("new") / "out")


def test_all_files_are_written_and_are_reproducible(one, path):
    numbers = json.loads(json.dumps(one.to_dict()))
    assert path.name == "explanation.html" and {p.name for p in path.parent.iterdir()} == FILES
    assert json.loads((path.parent / "explanation.json").read_text()) == numbers
    before = path.read_bytes()
    explanation_page.write(one, bundle(), path.parent)
    assert path.read_bytes() == before


def test_the_page_shows_everything(one, path):
    text = " ".join(Reader(path.read_text()).text.split())
    for part in (
        "clip.wav",
        *narrative.sentences(one),
        narrative.without_relations(one),
        "Window 1 of 1, 0.0 to 2.0 s",
        "front end “panns_16k”, 2.0 s at 16000 Hz",
        "Trained on esc10. Licence of the data: CC BY 4.0",
        "Gradient times input",
        "Note: <i>note</i>.",
        "Probabilities are not calibrated",
        *one.events,
    ):
        assert part in text
    assert "a/b" not in text


def test_the_page_requests_nothing_and_its_ids_resolve(path):
    text = path.read_text()
    reader = Reader(text)
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in reader.elements:
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name, "data:")
            assert target.startswith("data:") or target[1:] in ids, (tag, attributes)
        assert set(re.findall(r"url\(#([^)]*)\)", str(attributes))) <= set(ids)
        assert attributes.get("aria-labelledby", ids[0]) in ids
    policy = next(a["content"] for _, a in reader.elements if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; ") and "http" not in policy
    images = [attributes for _, attributes in reader.elements if attributes.get("role") == "img"]
    assert len(images) == 3 and all(len(each["aria-label"]) > 40 for each in images)
    assert pictures.INK not in text.split("</style>")[1] and "currentColor" in text


def test_the_audio_is_the_window_without_its_padding(one, path, tmp_path):
    window = dataclasses.replace(one.classification.timeline[0], stop=1.25)
    short = dataclasses.replace(one.classification, timeline=(window,), stop=1.25)
    shorter = dataclasses.replace(one, classification=short)
    short_path = explanation_page.write(shorter, bundle(), tmp_path)
    for page, seconds in ((path, 2.0), (short_path, 1.25)):
        uri = next(a["src"] for tag, a in Reader(page.read_text()).elements if tag == "audio")
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
        assert uri.startswith("data:audio/wav;") and rate == one.sample_rate
        assert len(samples) == seconds * rate
        assert np.abs(samples - np.clip(one.waveform[: len(samples)], -1, 1)).max() <= 2**-15


@pytest.mark.parametrize("p_events", [0.025, 0.5])
@pytest.mark.parametrize("p_relations", [0.025, 0.5])
def test_rankings_no_better_than_chance_are_folded(tmp_path, p_events, p_relations):
    both = {"event_curves": curves("events", p_events), "edge_curves": curves("edges", p_relations)}
    text = explanation_page.write(explanation(3, **both), bundle(), tmp_path).read_text()
    details = [each for tag, each in Reader(text).elements if tag == "details"]
    events, relations = p_events < 0.05, p_relations < 0.05
    assert {each["aria-labelledby"]: "open" in each for each in details} == {
        "h-graph": events and relations,
        "h-events": events,
        "h-relations": relations,
        "h-matrix": relations,
        "h-method": False,
    }
    assert text.index('class="badge') < min(map(text.index, ("<table", "<details")))


def test_the_page_of_an_unknown_sound_begins_with_that(one, tmp_path):
    far = dataclasses.replace(one.classification, distance=3.0, max_distance=1.5)
    page = explanation_page.write(dataclasses.replace(one, classification=far), bundle(), tmp_path)
    text = " ".join(Reader(page.read_text()).text.split())
    assert (
        "unlike the training clips (distance 3.00, limit 1.50); the best guess is explained" in text
    )


def test_a_fitted_temperature_is_named():
    fitted = bundle(temperature=1.3, calibration="57 validation clips").about_probabilities
    assert "a temperature of 1.3, fitted to 57 validation clips" in fitted


def test_graphml_leads_from_sender_to_receiver(one, path):
    graph = networkx.read_graphml(path.parent / "graph.graphml", node_type=int)
    assert isinstance(graph, networkx.DiGraph) and graph.graph["scene"] == "metro_station"
    for i, event in enumerate(one.events):
        assert graph.nodes[i]["label"] == event
        assert graph.nodes[i]["probability"] == one.activations.event_probabilities[i]
        assert graph.nodes[i]["contribution"] == one.node_contributions[i]
    assert len(graph.edges) == 20 and not any(graph.has_edge(i, i) for i in range(5))
    for sender, receiver, values in graph.edges(data=True):
        assert values["contribution"] == one.edge_contributions[receiver, sender]
        assert values["mean_edge"] == one.activations.edge_strengths[receiver, sender]


def test_a_single_event_has_a_page(tmp_path):
    one = dataclasses.replace(explanation(1), method="integrated")
    text = explanation_page.write(one, bundle(), tmp_path).read_text()
    assert "Integrated gradients" in text and "from → to" not in text
