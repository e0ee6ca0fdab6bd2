"""The files of an explanation: one page that needs no other, and a graph for other programs."""

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
from made_explanations import FILES, FRONT_END, explanation

from ergl_jax.bundle import Bundle
from ergl_jax.errors import InputError
from ergl_jax.inference import narrative, report
from ergl_jax.inference.fidelity import Counterfactual

HOSTILE = '"><script>alert(1)</script>'


def bundle(**changes):
    fields = {
        "model": {"name": "ergl"},
        "variables": {},
        "scenes": ("metro_station", "park", "tram"),
        "events": (),
        "front_end": FRONT_END,
        "clip_seconds": 2.0,
        "pad": "zero",
        "licence": "CC BY 4.0",
        "dataset": "esc10",
    }
    return Bundle(**fields | changes)


def page(one, **changes):
    used = bundle(**changes)
    figures = report.draw(one, used)
    for figure in figures.values():
        figure.canvas.draw()
    return report.page(one, used, figures)


class Reader(html.parser.HTMLParser):
    """Elements and attributes of a page, its text, and its headings in order."""

    VOID = {"meta", "link", "input", "br", "img"}

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.headings, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.open and re.fullmatch("h[1-6]", self.open[-1]):
            self.headings.append((self.open[-1], data.strip()))
        if not {"script", "style"} & set(self.open):
            self.text += data


def test_the_page_tells_all_in_order():
    one = explanation(14, counterfactual=Counterfactual((1,), 2, True), name="a/b/clip.wav")
    text = page(one)
    read = Reader(text)
    assert [name for _, name in read.headings] == [
        "metro station",
        "Sound and timeline",
        "Graph",
        "All relations",
        "Events",
        "Strongest relations",
        "How far to trust this",
        "What would change the scene",
        "Scenes",
        "How this was made",
    ]
    assert [level for level, _ in read.headings] == ["h1"] + 9 * ["h2"]
    said = " ".join(read.text.split())
    for part in (
        "clip.wav",
        narrative.paragraph(one),
        narrative.counterfactual(one),
        narrative.without_relations(one),
        "Window 1 of 1, 0.0 to 2.0 s",
        "front end “panns_16k”, 2.0 s at 16000 Hz",
        "Trained on esc10. Licence of that data: CC BY 4.0",
        "Gradient times input",
        *one.events,
    ):
        assert part in said
    assert "a/b" not in said
    assert "Integrated gradients" in page(dataclasses.replace(one, method="integrated"))


def test_the_page_asks_for_nothing():
    read = Reader(page(explanation(5)))
    for tag, attributes in read.elements:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), (tag, attributes)
        assert "url(http" not in str(attributes) and "@import" not in str(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    policy = next(a["content"] for t, a in read.elements if "content" in a and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; ") and "http" not in policy


def test_ids_are_unique_and_what_refers_to_them_finds_them():
    read = Reader(page(explanation(5)))
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in read.elements:
        referred = re.findall(r"url\(#([^)]*)\)", str(attributes))
        referred += [
            attributes[k][1:] for k in ("href", "xlink:href") if attributes.get(k, "")[:1] == "#"
        ]
        referred += [attributes["aria-labelledby"]] if "aria-labelledby" in attributes else []
        assert set(referred) <= set(ids)


def test_pictures_take_the_ink_of_the_page_and_are_told_to_who_does_not_see_them():
    text = page(explanation(5))
    assert report.pictures.INK not in text.split("</style>")[1] and "currentColor" in text
    read = Reader(text)
    told = [attributes for _, attributes in read.elements if attributes.get("role") == "img"]
    assert len(told) == 3 and all(len(each["aria-label"]) > 40 for each in told)
    drawn = [attributes for tag, attributes in read.elements if tag == "svg"]
    assert len(drawn) == 3 and all(each["aria-hidden"] == "true" for each in drawn)


def test_hostile_names_are_text():
    one = explanation(
        4,
        events=(HOSTILE, "</script><script>alert(2)</script>", "<!--", "{{ 7 * 7 }} ' $&amp;"),
        scenes=(HOSTILE, "<b>park</b>", "tram"),
        name=f"a/{HOSTILE.replace('/', '')}\udcff\x07.wav",
        notes=("<i>note</i>",),
    )
    text = page(one, licence=HOSTILE, dataset="<u>data</u>")
    read = Reader(text)
    assert [tag for tag, _ in read.elements].count("script") == 2
    assert not {"b", "i", "u"} - {"i"} & {tag for tag, _ in read.elements}
    assert not re.search("<i>note|<script>alert|<b>park", text)
    assert "{{ 7 * 7 }}" in read.text and HOSTILE in read.text
    text.encode("utf-8")
    assert "\x07" not in text


def test_the_sound_is_the_window():
    loud = np.float32([0.0, 0.5, -0.25, 1.5, -1.5] * 400)
    text = page(dataclasses.replace(explanation(3), waveform=loud))
    uri = next(a["src"] for tag, a in Reader(text).elements if tag == "audio")
    kind, _, sound = uri.partition(";base64,")
    assert kind == "data:audio/wav"
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sound)))
    assert rate == FRONT_END.sample_rate
    assert np.abs(samples - np.clip(loud, -1, 1)).max() <= 2**-15


def test_the_data_of_the_matrix_are_the_arrays():
    one = explanation(5)
    text = page(one)
    data = json.loads(re.search(r'id="data">(.*?)</script>', text).group(1))
    assert data["events"] == list(one.events)
    assert np.allclose(data["contributions"], one.edge_contributions, rtol=1e-4)
    assert np.allclose(data["means"], one.edge_means, rtol=1e-4)
    assert 0 < data["left"] < data["right"] < 1 and data["seconds"] == 2.0


@pytest.mark.parametrize("n", [1, 5])
def test_all_files_are_written_and_nothing_else(n, tmp_path):
    one = explanation(n)
    found = report.write(one, bundle(), tmp_path / "new" / "out")
    assert found == tmp_path / "new" / "out" / "explanation.html"
    assert {path.name for path in found.parent.iterdir()} == FILES
    written = json.loads((found.parent / "explanation.json").read_text())
    assert written == json.loads(json.dumps(one.to_dict()))
    assert found.read_text().startswith("<!doctype html>")
    again = found.read_bytes()
    report.write(one, bundle(), found.parent)
    assert found.read_bytes() == again


def test_a_page_of_ten_seconds_is_small():
    long = np.random.default_rng(0).uniform(-1, 1, 320000).astype(np.float32)
    one = dataclasses.replace(explanation(25), waveform=long, sample_rate=32000)
    assert len(page(one).encode()) < 2e6


def test_graphml_leads_from_sender_to_receiver(tmp_path):
    one = explanation(4, events=("Speech", HOSTILE, "a & b", "bell\x07"))
    report.write(one, bundle(), tmp_path)
    graph = networkx.read_graphml(tmp_path / "graph.graphml", node_type=int)
    assert isinstance(graph, networkx.DiGraph) and graph.graph["scene"] == "metro_station"
    assert [graph.nodes[i]["label"] for i in range(4)] == [*one.events[:3], "bell\ufffd"]
    for i in range(4):
        assert graph.nodes[i]["probability"] == one.opened.event_probabilities[i]
        assert graph.nodes[i]["contribution"] == one.node_contributions[i]
    assert len(graph.edges) == 12 and not any(graph.has_edge(i, i) for i in range(4))
    for sender, receiver, values in graph.edges(data=True):
        assert values["contribution"] == one.edge_contributions[receiver, sender]
        assert values["mean_edge"] == one.edge_means[receiver, sender]


def test_a_file_in_place_of_the_directory_is_a_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file can't be made"):
        report.write(explanation(2), bundle(), tmp_path / "file")
