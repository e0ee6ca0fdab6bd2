"""ergl explain from the command line to its files."""

import json
import sys

import numpy as np
import pytest
import soundfile
from made_explanations import FILES

from ergl_jax.cli import main


@pytest.fixture
def explain(tiny, tmp_path):
    """Explains a clip, by default one of noise, into tmp_path/out; returns the exit status."""
    noise = tmp_path / "noise & <b>.wav"
    soundfile.write(noise, np.random.default_rng(0).normal(0, 0.1, 5 * 8000), 8000)
    flags = [f"--bundle={tiny.workdir / 'bundle'}", f"--out={tmp_path / 'out'}"]

    def explain(*more, clip=noise):
        return main(["explain", str(clip), *flags, *more])

    return explain


def test_all_files_are_written(explain, tmp_path, capsys):
    out = tmp_path / "out"
    assert explain() == 0
    captured = capsys.readouterr()
    *_, paragraph, page = captured.out.strip().split("\n")
    assert "is classified as" in paragraph and page == f"page: {out / 'explanation.html'}"
    assert captured.err == "" and {path.name for path in out.iterdir()} == FILES
    html = (out / "explanation.html").read_text(encoding="utf-8")
    assert "noise &amp; &lt;b&gt;.wav" in html and "<b>" not in html
    numbers = json.loads((out / "explanation.json").read_text())
    assert numbers["classification"]["file"].endswith("noise & <b>.wav")
    assert numbers["method"] == "gradient"


def test_integrated_gradients_on_a_terminal_of_ascii(explain, tmp_path, monkeypatch):
    with open(tmp_path / "printed", "w", encoding="ascii") as ascii_only:
        monkeypatch.setattr(sys, "stdout", ascii_only)
        assert explain("--method=integrated") == 0
    assert "page: " in (tmp_path / "printed").read_text()
    numbers = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert numbers["method"] == "integrated"


def test_wrong_arguments_are_one_line(explain, tmp_path, capsys):
    def error():
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
        return captured.err

    assert explain("--method=guess") == 2
    assert "--method: invalid choice: 'guess'" in error()
    (tmp_path / "notes.wav").write_text("not audio")
    assert explain(clip=tmp_path / "notes.wav") == 2
    assert "notes.wav" in error() and not (tmp_path / "out").exists()
    (tmp_path / "out").write_text("kept")
    assert explain() == 2
    assert "--out" in error() and (tmp_path / "out").read_text() == "kept"
