"""Whatever events, scenes, clips and files are called is text: in pages, pictures and tables."""

import contextlib
import csv
import dataclasses
import io
import json
import xml.etree.ElementTree as ET

import chromium
import networkx
import numpy as np
import pytest
import soundfile
from made_explanations import bundle, explanation
from made_surveys import hand_made, predicting

from ergl_jax.bundle import load as load_bundle
from ergl_jax.cli import main as ergl_main
from ergl_jax.datasets import sources
from ergl_jax.inference import atlas_page, explanation_page
from ergl_jax.training import evaluate

TAKEN = "document.title='taken'"
NAMES = (
    f"</script><img src=x onerror={TAKEN}>",
    f'"><svg onload="{TAKEN}"><style>@import \'http://127.0.0.1:9/a\'</style>',
    f"' onmouseover='{TAKEN}' x='",
    f"<a href=\"javascript:{TAKEN}\">go</a><iframe srcdoc='<script>{TAKEN}</script>'>",
    "![a](http://127.0.0.1:9/a.png) [b](javascript:alert(1))",
    "<!--<script>",
    "]]></text><script>alert(1)</script>&lt;b&gt;&amp;",
    "{{ 7 * 7 }}${7 * 7}{% raw %}$\\frac{",
    "\u202ereverof\u2066 \u200fשלום مرحبا 路面電車 🚋",
    "=cmd|' /C calc'!A0",
    "a name of five hundred characters, " + "x" * 465,
    "two\nlines\tand \\u003cb\\u003e",
)
TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
# What could run or load something, and all names of attributes and addresses in a page.
FOUND = """({
  elements: ["img", "iframe", "object", "embed", "a[href]", "form", "base", "svg script"]
    .filter(kind => document.querySelector(kind) !== null),
  scripts: document.scripts.length,
  handlers: [...document.querySelectorAll("*")].flatMap(each => each.getAttributeNames())
    .filter(name => name.startsWith("on")),
  addresses: [...document.querySelectorAll("[src], [href]")]
    .map(each => each.getAttribute("src") || each.getAttribute("href"))
    .filter(text => !text.startsWith("data:") && !text.startsWith("#")),
  text: document.body.textContent,
  title: document.title,
  width: document.documentElement.scrollWidth,
})"""


def one():
    """An explanation of twelve events and as many scenes of such names."""
    return explanation(
        len(NAMES),
        events=NAMES,
        scenes=NAMES,
        scene_logits=np.linspace(3, 0, len(NAMES)),
        name="a/" + NAMES[0].replace("/", "") + "\u202egpj.wav",
        notes=NAMES,
    )


def write_page(said, directory):
    named = bundle(scenes=NAMES, events=NAMES, licence=NAMES[1], dataset=NAMES[3])
    return explanation_page.write(said, named, directory)


def survey(number):
    """A survey whose scenes and events are four and three of NAMES, from `number` on."""
    found = predicting(hand_made(), {0: 1, 1: 0, 4: 0, 3: 2})
    mine = NAMES[number:] + NAMES[:number]
    return dataclasses.replace(
        found,
        scenes=mine[:4],
        events=mine[4:7],
        names=tuple(f"{mine[k % 12]}{k}" for k in range(30)),
        dataset=mine[7],
    )


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("websocket")
    if chromium.EXECUTABLE is None:
        pytest.skip("no Chromium")
    with chromium.page() as page:
        yield page


def check(browser, path, *names):
    """Opens a page, points at its matrix, and finds it inert and the names in its text."""
    for width in (375, 1280):
        browser.show(width)
        browser.complaints.clear()
        browser.requests.clear()
        browser.open(path)
        browser.evaluate("[...document.querySelectorAll('#matrix td[role]')].map(c => c.click())")
        found = browser.evaluate(FOUND)
        assert (found["elements"], found["scripts"], found["handlers"]) == ([], 2, [])
        assert found["addresses"] == [] and found["width"] <= width
        assert found["title"] != "taken" and not set(found["title"] + found["text"]) & set(TURNING)
        text = " ".join(found["text"].split())
        for name in names:
            shown = "".join("\ufffd" if c in TURNING else c for c in name)
            assert " ".join(shown.split()) in text, name
        asked = {url for url in browser.requests if not url.startswith("data:")}
        assert browser.complaints == [] and asked == {path.absolute().as_uri()}


def test_the_check_sees_what_is_not_inert(browser, tmp_path):
    path, link = tmp_path / "bad.html", "<a href='javascript:a'>b</a>"
    for bad in (NAMES[0], "<p onclick=a>", link, "<iframe>", f"<p>{NAMES[8]}"):
        path.write_text(f"<!doctype html><meta charset=utf-8><body>{bad}", encoding="utf-8")
        with pytest.raises(AssertionError):
            check(browser, path)


def test_the_page_of_an_explanation(browser, tmp_path):
    check(browser, write_page(one(), tmp_path), *NAMES)


@pytest.mark.parametrize("number", [0, 3, 6, 9])
def test_the_page_of_an_atlas(browser, tmp_path, number):
    found = survey(number)
    path = atlas_page.write(tmp_path, found, None, runs=[f"runs/{NAMES[4].replace('/', '')}"])
    plain = [name.replace("_", " ") for name in found.scenes]
    check(browser, path, *plain, *found.events, found.dataset)


def test_pictures_graph_and_numbers(tmp_path):
    said = one()
    write_page(said, tmp_path)
    pictures = list(tmp_path.glob("*.svg"))
    assert len(pictures) == 4
    for path in pictures:
        for element in ET.parse(path).iter():
            assert element.tag.split("}")[1] not in ("script", "a", "foreignObject", "image") or (
                element.get("{http://www.w3.org/1999/xlink}href", "").startswith("data:image/png")
            )
            for name, value in element.attrib.items():
                assert not name.split("}")[-1].startswith("on")
                assert "javascript:" not in value and "url(http" not in value
    graph = networkx.read_graphml(tmp_path / "graph.graphml", node_type=int)
    assert [graph.nodes[k]["label"] for k in range(len(NAMES))] == list(NAMES)
    assert graph.graph["scene"] == said.scenes[said.scene]
    numbers = json.loads((tmp_path / "explanation.json").read_text(encoding="utf-8"))
    assert numbers == json.loads(json.dumps(said.to_dict()))
    assert all(json.dumps(name) in json.dumps(numbers) for name in NAMES)
    found = survey(0)
    atlas_page.write(tmp_path, found, None, runs=[NAMES[0]])
    numbers = json.loads((tmp_path / "atlas.json").read_text(encoding="utf-8"))
    assert (numbers["scenes"], numbers["events"]) == (list(found.scenes), list(found.events))
    assert numbers["runs"] == [NAMES[0]] and numbers["dataset"] == found.dataset


@pytest.fixture
def named(tiny, tmp_path):
    """The directory of the tiny run's bundle with other names."""
    bundle = load_bundle(tiny.workdir / "bundle")
    dataclasses.replace(
        bundle,
        scenes=NAMES[: len(bundle.scenes)],
        events=NAMES[-len(bundle.events) :],
        dataset=NAMES[4],
        licence=NAMES[1],
    ).save(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_tables_hold_names_as_they_are(tiny, named, tmp_path, capfd):
    """Formulas too: programs join tables by name. The README says how to open one safely."""
    clip = tmp_path / "=1+1.wav"
    soundfile.write(clip, np.random.default_rng(0).uniform(-0.1, 0.1, 32000), 16000)
    with contextlib.chdir(tmp_path):
        assert ergl_main(["classify", f"--bundle={named}", "--csv", "--keep=1", clip.name]) == 0
    header, row = csv.reader(io.StringIO(capfd.readouterr().out))
    bundle = load_bundle(named)
    assert header[-2:] == ["notes", "error"] and header[6:-2] == [
        f"scene:{n}" for n in bundle.scenes
    ] + [f"event:{n}" for n in bundle.events]
    assert row[0] == clip.name and row[2] in bundle.scenes
    dataset = sources.open_dataset(tiny.config().data)
    dataset = dataclasses.replace(dataset, scenes=bundle.scenes)
    predictions, _ = evaluate.evaluate(bundle, dataset, threshold=0.5)
    evaluate.write(tmp_path, predictions, dataset.split("test"), bundle)
    for name, start in (("predictions", 3), ("confusion", 1)):
        with open(tmp_path / f"{name}.csv", newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        assert header[start:] == list(bundle.scenes) and len(rows) == 10
    assert [row[0] for row in rows] == list(bundle.scenes)
