"""ergl explain from the command line to its files."""

import dataclasses
import json
import sys

import networkx
import numpy as np
import pytest
import soundfile
from made_explanations import FILES

from ergl_jax import bundle as bundles
from ergl_jax.bundle import Bundle
from ergl_jax.cli import main


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "noise & <b>.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 5 * 8000), 8000)
    return path


def explain(tiny, clip, out, *more):
    return main(
        ["explain", str(clip), f"--bundle={tiny.workdir / 'bundle'}", f"--out={out}", *more]
    )


def test_all_files_are_written(tiny, clip, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    assert explain(tiny, clip, out) == 0
    said = capsys.readouterr()
    assert said.err == ""
    paragraph, page = said.out.strip().split("\n")
    assert paragraph.startswith("The model ") and page == f"page: {out / 'explanation.html'}"
    assert {path.name for path in out.iterdir()} == FILES
    html = (out / "explanation.html").read_text(encoding="utf-8")
    assert "noise &amp; &lt;b&gt;.wav" in html and "<b>" not in html

    found = json.loads((out / "explanation.json").read_text())
    assert found["classification"]["name"] == str(clip) and found["method"] == "gradient"
    events = [each["event"] for each in found["events"]]
    assert tuple(events) == bundles.load(tiny.workdir / "bundle").events
    graph = networkx.read_graphml(out / "graph.graphml", node_type=int)
    assert [graph.nodes[i]["label"] for i in graph] == events
    assert len(graph.edges) == len(found["relations"]) == len(events) * (len(events) - 1)
    for each in found["relations"]:
        edge = graph.edges[events.index(each["from"]), events.index(each["to"])]
        assert edge["contribution"] == each["contribution"]
        assert edge["mean_edge"] == each["mean_edge"]
        receiver, sender = events.index(each["to"]), events.index(each["from"])
        assert found["edge_contributions"][receiver][sender] == each["contribution"]


def test_the_method_is_chosen(tiny, clip, tmp_path, capsys):
    assert explain(tiny, clip, tmp_path / "out", "--method=integrated") == 0
    found = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert found["method"] == "integrated"
    capsys.readouterr()
    assert explain(tiny, clip, tmp_path / "out", "--method=guess") == 2
    assert "--method: invalid choice: 'guess'" in one_line(capsys)


def test_the_methods_offered_are_those_there_are(tmp_path):
    import argparse

    from ergl_jax.cli import explain as command
    from ergl_jax.inference.explain import METHODS

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    (method,) = [action for action in parser._actions if action.dest == "method"]
    assert tuple(method.choices) == METHODS


def test_a_terminal_that_knows_no_arrows_is_written_to(tiny, clip, tmp_path, monkeypatch, capfd):
    ascii_only = open(tmp_path / "said", "w", encoding="ascii")
    with ascii_only, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", ascii_only)
        assert explain(tiny, clip, tmp_path / "out") == 0
    assert "page: " in (tmp_path / "said").read_text()


def one_line(capsys):
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.strip().split("\n")
    assert line.startswith("error: ")
    return line


def test_what_is_not_audio_is_a_line(tiny, tmp_path, capsys):
    (tmp_path / "notes.wav").write_text("not audio")
    assert explain(tiny, tmp_path / "notes.wav", tmp_path / "out") == 2
    assert "notes.wav" in one_line(capsys)
    assert not (tmp_path / "out").exists()
    assert explain(tiny, tmp_path / "none.wav", tmp_path / "out") == 2
    assert "none.wav" in one_line(capsys)


def test_an_out_that_is_a_file_is_a_line(tiny, clip, tmp_path, capsys):
    (tmp_path / "out").write_text("kept")
    assert explain(tiny, clip, tmp_path / "out") == 2
    assert "--out" in one_line(capsys) and (tmp_path / "out").read_text() == "kept"


def test_a_bundle_without_a_graph_is_a_line(tiny, clip, tmp_path, capsys):
    import jax

    trained = bundles.load(tiny.workdir / "bundle")
    plain = dataclasses.replace(trained, model=dict(trained.model) | {"name": "cnn"})
    frames = trained.front_end.num_frames(trained.clip_seconds)
    log_mel = np.zeros((1, frames, trained.front_end.n_mels), np.float32)
    variables = plain.build().init(jax.random.key(0), log_mel, train=False)
    Bundle.save(dataclasses.replace(plain, variables=variables), tmp_path / "bundle")
    arguments = [f"--bundle={tmp_path / 'bundle'}", f"--out={tmp_path / 'out'}"]
    assert main(["explain", str(clip), *arguments]) == 2
    assert "the bundle's model is 'cnn', which has no graph to explain" in one_line(capsys)
