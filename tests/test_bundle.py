"""Bundles: saved and loaded without a change; unusable ones are refused with the reason."""

import dataclasses
import json
import os
import shutil
import struct
import threading
import time

import jax
import numpy as np
import pytest
from programs import python
from safetensors.numpy import load_file, save_file

from ergl_jax import bundle as bundles
from ergl_jax.audio import FRONT_ENDS
from ergl_jax.errors import InputError
from ergl_jax.inference.classify import Model


@pytest.fixture
def directory(tiny, tmp_path):
    """A copy of the tiny run's bundle, to spoil."""
    return shutil.copytree(tiny.workdir / "bundle", tmp_path / "bundle")


@pytest.fixture
def spoil(directory):
    """Changes fields of config.json, None removes one; the weights lose its hash."""
    weights = directory / "model.safetensors"

    def change(**fields):
        save_file(load_file(weights), weights)
        config = json.loads((directory / "config.json").read_text()) | fields
        config = {name: value for name, value in config.items() if value is not None}
        (directory / "config.json").write_text(json.dumps(config))

    return change


def test_what_is_saved_is_loaded_and_replaces_a_bundle(directory):
    bundle = bundles.load(directory)
    leftover = directory.with_name("bundle.writing")
    leftover.mkdir()
    for target in (directory.parent / "deep" / "again", directory):
        dataclasses.replace(bundle, licence="CC0").save(target)
        again = bundles.load(target)
        assert again.licence == "CC0"
        for field in dataclasses.fields(bundle):
            if field.name not in ("variables", "licence", "known"):
                assert getattr(again, field.name) == getattr(bundle, field.name), field.name
        assert jax.tree.structure(again.variables) == jax.tree.structure(bundle.variables)
        jax.tree.map(np.testing.assert_array_equal, again.variables, bundle.variables)
        jax.tree.map(np.testing.assert_array_equal, again.known.arrays(), bundle.known.arrays())
        names = sorted(path.name for path in target.iterdir())
        assert names == ["config.json", "model.safetensors"]
    assert not leftover.exists()


def test_several_processes_save_the_same_bundle(directory, monkeypatch):
    bundle, errors = bundles.load(directory), []
    replace = os.replace

    def slowly(*paths):
        time.sleep(0.01)
        replace(*paths)

    def save(licence):
        try:
            for _ in range(5):
                dataclasses.replace(bundle, licence=licence).save(directory)
        except Exception as error:
            errors.append(error)

    monkeypatch.setattr(os, "replace", slowly)
    threads = [threading.Thread(target=save, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and bundles.load(directory).licence in "abc"
    assert list(directory.parent.iterdir()) == [directory]


def test_the_loaded_model_is_the_trained_one(tiny, directory):
    """Its probabilities are those that training wrote."""
    from ergl_jax.datasets import builder

    bundle = bundles.load(directory)
    split = builder.load(next(tiny.data_dir.glob("*/*/*"))).split("test")
    model = bundle.build()
    apply = jax.jit(lambda x: model.apply(bundle.variables, x, train=False))
    output = apply(split.arrays()["log_mel"])
    path = tiny.workdir / "predictions.csv"
    written = np.loadtxt(path, delimiter=",", skiprows=1, usecols=range(3, 13))
    probabilities = jax.nn.softmax(output.scene_logits / bundle.temperature)
    np.testing.assert_allclose(probabilities, written, atol=1e-5)


def test_older_bundles_are_read(directory, spoil):
    """They have no temperature, no source, no hash of config.json, and know no unknown sounds."""
    weights = directory / "model.safetensors"
    arrays = load_file(weights)
    save_file({name: x for name, x in arrays.items() if not name.startswith("known/")}, weights)
    spoil(temperature=None, source=None, calibration=None)
    bundle = bundles.load(directory)
    assert (bundle.temperature, bundle.source, bundle.calibration) == (1.0, "", "")
    assert bundle.known is None and "not calibrated" in bundle.about_probabilities
    result = Model(bundle).classify(np.zeros(100), sample_rate=8000)
    assert result.known is None and result.to_dict()["scene"] == result.scene


def test_an_older_temperature_was_fitted(directory, spoil):
    spoil(temperature=1.5, calibration=None)
    assert "1.5, fitted to validation clips" in bundles.load(directory).about_probabilities


def test_a_bundle_that_is_replaced_is_never_seen_in_part(directory, monkeypatch):
    """At each renaming and removal there is the old one, none, or the new one, whole."""
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


def refused(directory, message):
    with pytest.raises(InputError, match=message):
        bundles.load(directory)


def test_a_missing_file_is_named(directory):
    for name in ("model.safetensors", "config.json"):
        (directory / name).unlink()
        refused(directory, f"bundle is not a bundle: it has no {name}")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scenes": None}, "scenes is missing"),
        ({"format": 2}, "format=2.* install the version"),
        ({"temperature": -1.0}, "temperature=-1.0 is not from 0.001 to 1000"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"clip_seconds": "2"}, "clip_seconds='2' is not"),
        ({"clip_seconds": 10**400}, "clip_seconds=1"),
        ({"model": {"name": "ergl"}}, "model.compute_dtype is missing"),
        ({"scenes": ["a", "b"]}, "params/head/scene/.* is float32 .*, the model has float32"),
        ({"scenes": ["a", "a"]}, "scenes is not a list of different names"),
        ({"pad": "wrap"}, "pad='wrap'"),
        ({"front_end": {"name": "paper", "rate": 1}}, "this version can't reproduce the front end"),
    ],
)
def test_a_wrong_field_is_named(directory, spoil, fields, message):
    spoil(**fields)
    refused(directory, f"bundle/.*: {message}")


def test_a_front_end_is_what_this_version_has_under_its_name(directory, spoil):
    """With or without its fields of default value, as older versions wrote them."""
    whole = dataclasses.asdict(bundles.load(directory).front_end)
    few = {name: value for name, value in whole.items() if name not in ("segment", "offset")}
    spoil(front_end=few)
    assert bundles.load(directory).front_end.name == whole["name"]
    for change in ({"fmax": 7000.0}, {"name": "other"}, {"segment": 5}):
        spoil(front_end=whole | change)
        refused(directory, "can't reproduce the front end")


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000])
def test_a_config_that_is_no_object_is_refused(directory, text):
    (directory / "config.json").write_text(text)
    refused(directory, "config.json")


def test_an_edited_config_is_refused(directory):
    """It could be used, and the model would answer otherwise than it was trained to."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    front_end = dataclasses.asdict(FRONT_ENDS["panns_32k"])
    for change in ({"front_end": front_end}, {"scenes": config["scenes"][::-1]}, {}):
        path.write_text(json.dumps(config | change))
        refused(directory, "config.json is not the one that model.safetensors was")


def test_damaged_and_other_weights_are_refused(directory):
    path = directory / "model.safetensors"
    whole = load_file(path)
    name = sorted(whole)[-1]
    for flat, reason in (
        ({key: x for key, x in whole.items() if key != name}, f"{name} is missing"),
        (whole | {"params/../../x": np.zeros(1)}, "params/../../x is float64 .* no such weights"),
        (whole | {name: whole[name][None]}, f"{name} is float32 "),
        ({key: np.float16(x) for key, x in whole.items()}, "is float16 "),
        (whole | {"known/mean": whole["known/mean"][1:]}, "known/"),
    ):
        save_file(flat, path)
        refused(directory, reason)
    content = path.read_bytes()
    for damaged in (content[:-5], struct.pack("<Q", 2**63) + content[8:]):
        path.write_bytes(damaged)
        refused(directory, "model.safetensors is damaged")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(directory, value):
    path = directory / "model.safetensors"
    flat = load_file(path)
    name = max(flat, key=lambda name: flat[name].size)
    flat[name].flat[-1] = value
    save_file(flat, path)
    refused(directory, f"model.safetensors: {name} has NaN or infinite values")


def test_loading_a_bundle_imports_nothing_of_training(directory):
    program = (
        "import sys; from ergl_jax.bundle import load; load(sys.argv[1]);"
        "print({name.split('.')[0] for name in sys.modules})"
    )
    loaded = set(eval(python("-c", program, directory, check=True).stdout))  # noqa: S307
    training = {"optax", "orbax", "sklearn", "tensorboardX", "tensorflow_datasets", "grain"}
    assert "flax" in loaded and not loaded & (training | {"tensorflow", "torch", "matplotlib"})


def test_saving_never_replaces_anything_but_a_bundle(tiny, tmp_path):
    bundle = bundles.load(tiny.workdir / "bundle")
    workdir = tmp_path / "run"  # has a config.json, as a bundle has
    (workdir / "checkpoints").mkdir(parents=True)
    (workdir / "config.json").write_text("{}")
    (tmp_path / "file").write_text("")
    for target, reason in ((workdir, "has checkpoints in it"), (tmp_path / "file", "is a file")):
        with pytest.raises(InputError, match=reason):
            bundle.save(target)
    assert (workdir / "checkpoints").is_dir() and (workdir / "config.json").read_text() == "{}"
