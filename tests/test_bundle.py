"""A bundle comes back as it was saved, and what can't be used is refused by name."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ergl_jax import bundle as bundles
from ergl_jax.audio import FRONT_ENDS
from ergl_jax.errors import InputError


@pytest.fixture
def directory(tiny, tmp_path):
    """A copy of the tiny run's bundle, to spoil."""
    return shutil.copytree(tiny.workdir / "bundle", tmp_path / "bundle")


@pytest.fixture
def spoil(directory):
    """Changes fields of config.json; one that becomes None is left out.

    The weights forget which config.json is theirs, as those of older bundles.
    """
    weights = directory / "model.safetensors"

    def change(**fields):
        save_file(load_file(weights), weights)
        config = json.loads((directory / "config.json").read_text()) | fields
        config = {name: value for name, value in config.items() if value is not None}
        (directory / "config.json").write_text(json.dumps(config))

    return change


def test_what_is_saved_comes_back(directory, tmp_path):
    bundle = bundles.load(directory)
    bundle.save(tmp_path / "deep" / "again")
    again = bundles.load(tmp_path / "deep" / "again")
    for field in dataclasses.fields(bundle):
        if field.name != "variables":
            assert getattr(again, field.name) == getattr(bundle, field.name), field.name
    assert jax.tree.structure(again.variables) == jax.tree.structure(bundle.variables)
    jax.tree.map(np.testing.assert_array_equal, again.variables, bundle.variables)
    assert sorted(path.name for path in (tmp_path / "deep" / "again").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_the_restored_model_is_the_trained_one(tiny, directory):
    """Its logits are those that training wrote down as probabilities."""
    from ergl_jax.datasets import builder

    bundle = bundles.load(directory)
    split = builder.load(next(tiny.data_dir.glob("*/*/*"))).split("test")
    model = bundle.build()
    apply = jax.jit(lambda x: model.apply(bundle.variables, x, train=False))
    output = apply(split.arrays()["log_mel"])
    written = np.loadtxt(
        tiny.workdir / "predictions.csv",
        delimiter=",",
        skiprows=1,
        usecols=range(3, 13),
    )
    probabilities = jax.nn.softmax(output.scene_logits / bundle.temperature)
    np.testing.assert_allclose(probabilities, written, atol=1e-5)


def test_an_older_bundle_has_no_temperature(directory, spoil):
    spoil(temperature=None)
    assert bundles.load(directory).temperature == 1.0


@pytest.mark.parametrize("wrong", [0, -1.0, float("inf"), float("nan")])
def test_a_wrong_temperature_is_refused(directory, spoil, wrong):
    spoil(temperature=wrong)
    with pytest.raises(InputError, match="temperature=.* is (not from 0.001 to 1000|no finite)"):
        bundles.load(directory)


def test_saving_replaces_a_bundle(directory):
    bundle = bundles.load(directory)
    leftover = directory.with_name("bundle.writing")
    leftover.mkdir()
    dataclasses.replace(bundle, licence="CC0").save(directory)
    assert bundles.load(directory).licence == "CC0"
    assert not leftover.exists()


def test_a_bundle_that_is_replaced_is_never_seen_in_part(directory, monkeypatch):
    """At each renaming and removal the old one is there, or none, or the new one: whole."""
    bundle, seen = bundles.load(directory), []

    def watched(function):
        def run(*arguments, **options):
            look()
            function(*arguments, **options)
            look()

        return run

    def look():
        seen.append(bundles.load(directory).licence if directory.exists() else None)

    for module, name in ((os, "replace"), (shutil, "rmtree")):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    dataclasses.replace(bundle, licence="CC0").save(directory)
    changes = [now for now, before in zip(seen, [None, *seen], strict=False) if now != before]
    assert changes == [bundle.licence, None, "CC0"]
    assert [path.name for path in directory.parent.glob("bundle*")] == ["bundle"]


def test_config_json_tells_all_that_inference_needs(directory):
    config = json.loads((directory / "config.json").read_text())
    assert config["front_end"] == {
        "name": "panns_16k",
        "sample_rate": 16000,
        "window": "hann",
        "n_fft": 512,
        "hop": 160,
        "n_mels": 64,
        "fmin": 50.0,
        "fmax": 8000.0,
    }
    assert set(config["versions"]) == {"ergl_jax", "jax", "flax"}
    assert len(config["scenes"]) == 10 and len(config["events"]) == 4


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(directory, name):
    (directory / name).unlink()
    with pytest.raises(InputError, match=f"bundle is not a bundle: it has no {name}"):
        bundles.load(directory)


@pytest.mark.parametrize("field", ["model", "scenes", "events", "front_end", "licence", "pad"])
def test_a_missing_field_is_named(directory, spoil, field):
    spoil(**{field: None})
    with pytest.raises(InputError, match=f"config.json: {field} is missing"):
        bundles.load(directory)


def test_a_bundle_from_before_sources_were_told_is_read(directory, spoil):
    spoil(source=None)
    assert bundles.load(directory).source == ""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": 2}, "format=2"),
        ({"format": None}, "config.json: format is missing"),
        ({"clip_seconds": "2"}, "config.json: clip_seconds='2' is no finite number"),
        ({"model": {"name": "ergl"}}, "config.json: model.compute_dtype is missing"),
        ({"scenes": ["a", "b"]}, "scene/.* is .*, the model has"),
        ({"front_end": {"name": "paper", "rate": 1}}, "front_end.sample_rate is missing"),
    ],
)
def test_a_wrong_field_is_named(directory, spoil, fields, message):
    spoil(**fields)
    with pytest.raises(InputError, match=message):
        bundles.load(directory)


@pytest.mark.parametrize("change", [{"fmax": 7000.0}, {"name": "other"}])
def test_a_front_end_of_another_kind_is_refused(directory, spoil, change):
    config = json.loads((directory / "config.json").read_text())
    spoil(front_end=config["front_end"] | change)
    with pytest.raises(InputError, match="can't reproduce the front end"):
        bundles.load(directory)


@pytest.mark.parametrize("text", ["", "{", "[]", "7"])
def test_a_config_that_is_none_is_refused(directory, text):
    (directory / "config.json").write_text(text)
    with pytest.raises(InputError, match="config.json"):
        bundles.load(directory)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(front_end=dataclasses.asdict(FRONT_ENDS["panns_32k"])),
        lambda config: config["scenes"].reverse(),
        lambda config: config.update(temperature=2.0),
        lambda config: config.update(licence="do as you like"),
        lambda config: None,  # written in another way
    ],
    ids=["front end", "scenes", "temperature", "licence", "layout"],
)
def test_an_edited_config_is_told_from_the_one_of_the_weights(directory, change):
    """All of these could be used, and the model would say something else than it was trained to."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match="config.json is not the one that model.safetensors was"):
        bundles.load(directory)


def test_damaged_weights_are_refused(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match="model.safetensors is damaged"):
        bundles.load(directory)


def test_weights_of_another_model_are_refused(directory):
    path = directory / "model.safetensors"
    whole = load_file(path)
    name = sorted(whole)[-1]
    for flat in (
        {key: x for key, x in whole.items() if key != name},
        whole | {"params/more": np.zeros(1, np.float32)},
        whole | {name: whole[name][None]},
    ):
        save_file(flat, path)
        with pytest.raises(InputError, match=f"{name}|params/more"):
            bundles.load(directory)


def test_reading_a_bundle_needs_nothing_of_training(directory):
    program = (
        "import sys; from ergl_jax.bundle import load; load(sys.argv[1]);"
        "print({name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(directory)], capture_output=True, text=True, check=True
    )
    loaded = set(eval(done.stdout))  # noqa: S307
    training = {"optax", "orbax", "sklearn", "tensorboardX", "tensorflow_datasets", "grain"}
    assert "flax" in loaded and not loaded & (training | {"tensorflow", "torch", "matplotlib"})


def test_saving_never_replaces_anything_but_a_bundle(tiny, tmp_path):
    bundle = bundles.load(tiny.workdir / "bundle")
    workdir = tmp_path / "run"  # has a config.json, as a bundle has
    (workdir / "checkpoints").mkdir(parents=True)
    (workdir / "config.json").write_text("{}")
    (tmp_path / "file").write_text("")
    for target, reason in (
        (workdir, "has checkpoints in it, which"),
        (tmp_path / "file", "is a file"),
    ):
        with pytest.raises(InputError, match=reason):
            bundle.save(target)
    assert (workdir / "checkpoints").is_dir() and (workdir / "config.json").read_text() == "{}"
    for _ in range(2):  # a bundle replaces a bundle
        bundle.save(tmp_path / "bundle")
    assert bundles.load(tmp_path / "bundle").scenes == bundle.scenes
