"""The README's Python example, run as it stands there on a small bundle."""

import re
from pathlib import Path

import numpy as np
import soundfile

README = Path(__file__).resolve().parent.parent / "README.md"


def test_the_example_from_python_runs(tiny, tmp_path, capsys):
    section = README.read_text(encoding="utf-8").split("## From Python")[1].split("\n## ")[0]
    code = "\n".join(re.findall(r"^    (.*)$|^$", section, re.M))
    noise = np.random.default_rng(0).normal(0, 0.1, 44100)
    soundfile.write(tmp_path / "clip.wav", noise, 44100)
    for written, here in (
        ("runs/synthetic/bundle", tiny.workdir / "bundle"),
        ("clip.wav", tmp_path / "clip.wav"),
    ):
        assert code.count(written) == 1
        code = code.replace(written, str(here))
    names = {}
    exec(code, names)
    assert capsys.readouterr().out.strip() in names["trained"].scenes
    graphs = names["models"].to_graphs_tuple(
        names["output"].graph.nodes_out, names["output"].graph.edges_out
    )
    assert len(graphs.nodes) == len(names["trained"].events) == 4
