"""The programs of docs/export.md: what `ergl classify` says, from an exported file and its JSON."""

import dataclasses
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ergl_jax import bundle as bundles
from ergl_jax.audio import FRONT_ENDS, get_front_end, mel
from ergl_jax.cli import main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "export.md"
CLIPS = Path(os.environ.get("ERGL_SHARED_DATA", "not given")) / "urban_clips"


def programs():
    """The page's blocks: features, ONNX, StableHLO, result."""
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def noise(path, seconds):
    """A stereo recording whose level grows, so that its windows differ."""
    samples = np.random.default_rng(0).normal(0, 0.1, (round(seconds * 44100), 2))
    soundfile.write(path, samples * np.geomspace(1e-3, 1, len(samples))[:, None] * (1, 0.2), 44100)


def urban(path, _):
    if not CLIPS.is_dir():
        pytest.skip("no urban_clips under ERGL_SHARED_DATA")
    samples, rate = soundfile.read(CLIPS / "street_traffic.wav")
    soundfile.write(path, samples[: 5 * rate + rate // 2], rate)


@pytest.mark.parametrize("form", ["stablehlo", "onnx"])
@pytest.mark.parametrize(
    ("sound", "seconds", "front_end", "pad"),
    [
        (noise, 4.7, "panns_16k", "zero"),
        (noise, 4.7, "panns_16k:right", "zero"),
        (urban, 5.5, "panns_16k", "zero"),
        pytest.param(noise, 0.7, "paper", "repeat", marks=pytest.mark.slow),
        pytest.param(urban, 5.5, "kong", "zero", marks=pytest.mark.slow),
        pytest.param(noise, 4.01, "mtl", "zero", marks=pytest.mark.slow),
    ],
)
def test_the_programs_reproduce_classify(
    tiny, tmp_path, monkeypatch, capsys, form, sound, seconds, front_end, pad
):
    if form == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    # The temperature makes the probabilities of an untrained model differ.
    bundle = dataclasses.replace(
        bundles.load(tiny.workdir / "bundle"),
        front_end=get_front_end(front_end),
        pad=pad,
        temperature=0.01,
        known=None,  # else it abstains
    )
    bundle.save(Path("bundle"))
    sound(Path("clip.wav"), seconds)
    assert main(["export", "--bundle=bundle", "--out=exported", f"--format={form}"]) == 0
    capsys.readouterr()
    assert main(["classify", "--bundle=bundle", "--json", "clip.wav"]) == 0
    expected = json.loads(capsys.readouterr().out)
    features, onnx, stablehlo, result = programs()
    features = features.replace("model.onnx.json", f"model.{form}.json")
    names = {}
    exec(features + (onnx if form == "onnx" else stablehlo) + result, names)
    assert len(names["starts"]) == len(expected["timeline"])
    assert names["scenes"] == pytest.approx(expected["scenes"], rel=0, abs=1e-4)
    assert names["events"] == pytest.approx(expected["events"], rel=0, abs=1e-4)
    assert max(expected["scenes"].values()) > 0.3
    assert capsys.readouterr().out.startswith(expected["scene"])


def test_the_page_names_every_field(tiny):
    from ergl_jax.inference import export

    about = export.describe(bundles.load(tiny.workdir / "bundle"), "onnx")
    text = PAGE.read_text(encoding="utf-8")
    for field in [*about["recording"], *about.keys() - {"format", "platforms", "clip_seconds"}]:
        assert f"`{field}`" in text, field


def test_front_ends_that_librosa_lacks_have_no_arguments():
    lacking = {name for name, x in FRONT_ENDS.items() if mel.librosa_arguments(x) is None}
    assert lacking == {"mltf", "scattering", "panns_wavegram"}
    json.dumps([mel.librosa_arguments(x) for x in FRONT_ENDS.values()])
