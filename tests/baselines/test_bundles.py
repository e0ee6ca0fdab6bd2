"""Bundles with the front ends of other systems: saved, read, used, exported, or refused."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile

from ergl_jax import bundle as bundles
from ergl_jax.audio import get_front_end, log_mel
from ergl_jax.errors import InputError
from ergl_jax.inference import export
from ergl_jax.inference.classify import Model
from ergl_jax.inference.explain import Explainer

LEFT = dataclasses.replace(get_front_end("mtl"), channel="left")


@pytest.fixture(scope="module")
def bundle(tiny):
    """Of a tiny ERGL, whose 64 bands `kong` and `mtl` have too."""
    return bundles.load(tiny.workdir / "bundle")


@pytest.mark.parametrize("name", ["kong", "kong_20hz", "mtl"])
def test_a_front_end_travels_with_its_bundle(bundle, tmp_path, name):
    front_end = get_front_end(name)
    dataclasses.replace(bundle, front_end=front_end).save(tmp_path / "bundle")
    assert bundles.load(tmp_path / "bundle").front_end == front_end
    written = json.loads((tmp_path / "bundle/config.json").read_text())["front_end"]
    assert written["magnitude"] is True and written["offset"] == front_end.offset
    assert "channel" not in written and "segment" not in written  # as they have always been


@pytest.mark.parametrize(
    "change",
    [{"offset": 1e-7}, {"magnitude": False}, {"channel": "left"}, {"win_length": 1920}, {"of": 1}],
)
def test_another_number_or_an_unknown_one_is_refused(bundle, tmp_path, change):
    dataclasses.replace(bundle, front_end=get_front_end("kong")).save(tmp_path / "bundle")
    path = tmp_path / "bundle/config.json"
    config = json.loads(path.read_text())
    config["front_end"] |= change
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match="can't reproduce the front end"):
        bundles.load(tmp_path / "bundle")


def test_the_left_channel_of_files_and_of_samples_is_classified(bundle, tmp_path):
    left_of, both = (
        Model(dataclasses.replace(bundle, front_end=x)) for x in (LEFT, get_front_end("mtl"))
    )
    samples = 0.1 * np.random.default_rng(0).standard_normal((96000, 2)).astype(np.float32)
    samples[:, 1] *= np.sin(np.arange(96000) / 50)
    soundfile.write(tmp_path / "stereo.wav", samples, 48000, subtype="FLOAT")
    expected = both.classify(samples[:, 0], sample_rate=48000).scenes
    for found in (
        left_of.classify(tmp_path / "stereo.wav"),
        left_of.classify(samples, sample_rate=48000),
        left_of.classify(samples[:, 0], sample_rate=48000),
    ):
        assert found.scenes == pytest.approx(expected, abs=1e-6)
    mean = both.classify(samples, sample_rate=48000).scenes
    assert mean != pytest.approx(expected, abs=1e-6)


def test_an_explanation_takes_the_same_channel(bundle):
    samples = 0.1 * np.random.default_rng(0).standard_normal((96000, 2)).astype(np.float32)
    explainer = Explainer(Model(dataclasses.replace(bundle, front_end=LEFT)))
    found = explainer(samples, sample_rate=48000)
    np.testing.assert_array_equal(found.waveform, samples[:, 0])
    expected = log_mel(samples[None, :, 0], LEFT)[0]
    np.testing.assert_allclose(found.opened.log_mel, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["mltf", "scattering"])
def test_features_that_are_no_spectrogram_are_not_explained(bundle, name):
    model = Model(dataclasses.replace(bundle, front_end=get_front_end(name)))
    with pytest.raises(InputError, match=f"front end is '{name}'.*no mel spectrogram"):
        Explainer(model)


@pytest.mark.parametrize("form", ["stablehlo", "onnx"])
def test_an_export_tells_of_its_front_end(bundle, tmp_path, form):
    if form == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    kong = dataclasses.replace(bundle, front_end=get_front_end("kong"))
    written = export.write(kong, tmp_path, form)
    assert written.difference <= export.TOLERANCES[form]
    assert written.description["input"]["log_mel"] == ["batch", 63, 64]
    assert written.description["front_end"] == dataclasses.asdict(get_front_end("kong"))
