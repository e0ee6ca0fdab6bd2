"""The documentation's Python examples run, on a small bundle."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def run_example(tiny, tmp_path, monkeypatch):
    """Runs the section "From Python" of a page where its files are; returns its variables."""
    monkeypatch.chdir(tmp_path)
    for parent in ("runs", "recordings", "data"):
        Path(parent).mkdir()
    for stand_in in ("runs/synthetic", "data/Cnn14_DecisionLevelMax"):
        Path(stand_in).symlink_to(tiny.workdir)
    for seed, path in enumerate(("clip.wav", "recordings/a.wav", "recordings/b.wav")):
        noise = np.random.default_rng(seed).normal(0, 0.1, 44100)
        soundfile.write(path, noise, 44100)

    def run(page):
        text = (ROOT / page).read_text(encoding="utf-8")
        section = text.split("## From Python")[1].split("\n## ")[0]
        variables = {}
        exec("\n".join(re.findall(r"^    (.*)$", section, re.M)), variables)
        return variables

    return run


def test_the_example_of_the_readme_runs(run_example, capsys):
    names = run_example("README.md")
    described, classified, relation = capsys.readouterr().out.strip().splitlines()
    assert described == repr(names["model"])
    assert classified.startswith(names["result"].scene)
    assert set(relation.split(" -> ")) <= set(names["model"].events)
    assert names["vector"].shape == (4 * 4,)  # events x channels


@pytest.mark.slow
def test_the_example_of_the_graph_runs(run_example, capsys):
    names = run_example("docs/explain.md")
    assert len(names["graphs"].nodes) == len(names["model"].events) == 4
    assert capsys.readouterr().out.startswith("['recordings/a.wav'")


def test_the_example_of_tagging_runs(run_example):
    names = run_example("docs/tagging.md")
    assert set(names["tags"].events) == set(names["model"].events)
    assert Path("clip.svg").stat().st_size
