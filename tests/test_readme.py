"""The documentation's Python examples run, on a small bundle."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[1]


def run_example(page, tiny, tmp_path):
    """Runs the section "From Python" of a page and returns its variables."""
    section = (ROOT / page).read_text(encoding="utf-8").split("## From Python")[1].split("\n## ")[0]
    code = "\n".join(re.findall(r"^    (.*)$", section, re.M))
    noise = np.random.default_rng(0).normal(0, 0.1, 44100)
    soundfile.write(tmp_path / "clip.wav", noise, 44100)
    code = code.replace("runs/synthetic/bundle", str(tiny.workdir / "bundle"))
    code = code.replace('"clip.wav"', repr(str(tmp_path / "clip.wav")))
    variables = {}
    exec(code, variables)
    return variables


def test_the_example_of_the_readme_runs(tiny, tmp_path, capsys):
    names = run_example("README.md", tiny, tmp_path)
    classified, relation = capsys.readouterr().out.strip().splitlines()
    assert classified.startswith(names["result"].scene)
    assert set(relation.split(" -> ")) <= set(names["model"].bundle.events)


@pytest.mark.slow
def test_the_example_of_the_graph_runs(tiny, tmp_path):
    names = run_example("docs/explain.md", tiny, tmp_path)
    assert len(names["graphs"].nodes) == len(names["model"].bundle.events) == 4
