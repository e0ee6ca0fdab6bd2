"""Bundles with the front ends of other systems are saved, loaded, used and exported, or refused."""

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
    """Of a tiny ERGL, whose front end has 64 bands as `kong` and `mtl` have."""
    return bundles.load(tiny.workdir / "bundle")


def test_a_front_end_is_saved_and_loaded_if_it_is_unchanged(bundle, tmp_path):
    path = tmp_path / "bundle" / "config.json"
    for name in ("kong", "kong_20hz", "mtl"):
        front_end = get_front_end(name)
        dataclasses.replace(bundle, front_end=front_end).save(path.parent)
        assert bundles.load(path.parent).front_end == front_end
    config = json.loads(path.read_text())
    written = config["front_end"]
    assert "channel" not in written and "segment" not in written  # of later versions
    for change in ({"offset": 1e-7}, {"magnitude": False}, {"channel": "third"}, {"of": 1}):
        path.write_text(json.dumps(config | {"front_end": written | change}))
        with pytest.raises(InputError, match="can't reproduce the front end"):
            bundles.load(path.parent)


@pytest.mark.parametrize("name", ["kong:left", "kong:right", "mltf:mix", "mltf", "kong"])
def test_a_front_end_with_a_channel_is_saved_and_loaded(bundle, tmp_path, name):
    front_end = get_front_end(name)
    wanted = {"left": "left", "right": "right", "mix": "mean", "mltf": "left", "kong": "mean"}
    assert front_end.channel == wanted[name.rpartition(":")[2]]
    if front_end.n_mels == 64:
        dataclasses.replace(bundle, front_end=front_end).save(tmp_path / "bundle")
        assert bundles.load(tmp_path / "bundle").front_end == front_end


def test_the_left_channel_is_classified_and_explained(bundle, tmp_path):
    left, both = (
        Model(dataclasses.replace(bundle, front_end=x)) for x in (LEFT, get_front_end("mtl"))
    )
    samples = 0.1 * np.random.default_rng(0).standard_normal((96000, 2)).astype(np.float32)
    samples[:, 1] *= np.sin(np.arange(96000) / 50)
    soundfile.write(tmp_path / "stereo.wav", samples, 48000, subtype="FLOAT")
    expected = both.classify(samples[:, 0], sample_rate=48000).scenes
    for found in (
        left.classify(tmp_path / "stereo.wav"),
        left.classify(samples, sample_rate=48000),
        left.classify(samples[:, 0], sample_rate=48000),
    ):
        assert found.scenes == pytest.approx(expected, abs=1e-6)
    mean = both.classify(samples, sample_rate=48000).scenes
    assert mean != pytest.approx(expected, abs=1e-6)
    explanation = Explainer(left)(samples, sample_rate=48000)
    np.testing.assert_array_equal(explanation.waveform, samples[:, 0])
    features = log_mel(samples[None, :, 0], LEFT)[0]
    np.testing.assert_allclose(explanation.activations.log_mel, features, atol=1e-4)


def test_features_that_are_no_spectrogram_are_not_explained(bundle):
    for name in ("mltf", "scattering"):
        model = Model(dataclasses.replace(bundle, front_end=get_front_end(name)))
        with pytest.raises(InputError, match=f"front end '{name}'"):
            Explainer(model)


@pytest.mark.slow
def test_an_export_describes_its_front_end(bundle, tmp_path):
    kong = get_front_end("kong")
    written = export.write(dataclasses.replace(bundle, front_end=kong), tmp_path)
    assert written.description["input"]["log_mel"] == ["batch", 63, 64]
    assert written.description["front_end"] == dataclasses.asdict(kong)
