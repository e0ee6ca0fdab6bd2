"""Bundles of the Hugging Face Hub: their revisions, the cache, and use without a network."""

import dataclasses

import jax
import numpy as np
import pytest
from fake_hub import STRANGER
from made_hub import ADDRESS, are_same, push, put, refused
from programs import python

import ergl_jax
from ergl_jax import bundle as bundles
from ergl_jax.errors import InputError
from ergl_jax.training import transfer

pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")


def test_a_revision_is_a_commit_or_a_branch(hub, run, tmp_path):
    assert push(run, ADDRESS) == 0
    first = hub.repositories["me/scenes"].branches["main"]
    old = bundles.load(run)
    new = dataclasses.replace(old, licence="CC0")
    new.save(tmp_path / "new")
    assert push(tmp_path / "new", ADDRESS + "@trial%2F2") == 0
    assert push(tmp_path / "new", ADDRESS + "@trial%2F2") == 0  # the branch is there now
    are_same(bundles.load(ADDRESS), old)
    are_same(bundles.load(ADDRESS + "@trial%2F2"), new)
    assert push(tmp_path / "new", ADDRESS) == 0
    are_same(bundles.load(ADDRESS), new)
    are_same(bundles.load(f"{ADDRESS}@{first}"), old)
    are_same(bundles.load(f"hf://models/me/scenes@{first}/"), old)


def test_config_and_weights_are_of_one_commit(hub, run, tmp_path, monkeypatch):
    """Though someone pushes between the two downloads."""
    made, parse = put(hub, run / "bundle"), bundles.parse
    old = bundles.load(run)
    dataclasses.replace(old, licence="CC0").save(tmp_path / "new")
    new = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}

    def slowly(text):
        made.commit(new)
        return parse(text)

    monkeypatch.setattr(bundles, "parse", slowly)
    are_same(bundles.load(ADDRESS), old)


def test_what_was_downloaded_is_loaded_offline(hub, run, monkeypatch, capsys):
    put(hub, run / "bundle")
    online = bundles.load(ADDRESS)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    are_same(bundles.load(ADDRESS), online)
    with pytest.raises(InputError, match="me/other can't be reached while HF_HUB_OFFLINE is set"):
        bundles.load("hf://me/other")
    assert push(run, ADDRESS) == 2
    refused(capsys, f"{ADDRESS} can't be reached while HF_HUB_OFFLINE is set")
    assert not hub.asked


def test_without_a_network_the_copy_in_the_cache_is_used_with_a_warning(
    hub, run, monkeypatch, capsys
):
    put(hub, run / "bundle")
    online = bundles.load(ADDRESS)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    are_same(bundles.load(ADDRESS), online)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"warning: {ADDRESS} can't be reached: ")
    assert line.endswith("the copy in the cache is used")


def test_a_second_load_downloads_nothing(hub, run):
    put(hub, run / "bundle")
    bundles.load(ADDRESS)
    hub.asked.clear()
    bundles.load(ADDRESS)
    assert [line.split()[0] for line in hub.asked] == ["GET", "HEAD"]  # the latest commit?
    hub.asked.clear()
    bundles.load(f"{ADDRESS}@{hub.repositories['me/scenes'].branches['main']}")
    assert not hub.asked


def test_a_private_repository_needs_its_login(hub, run, monkeypatch):
    assert push(run, ADDRESS, "--private") == 0
    assert hub.repositories["me/scenes"].private
    bundles.load(ADDRESS)
    for token in ("", STRANGER):
        monkeypatch.setenv("HF_TOKEN", token)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(run / "cache"))
        with pytest.raises(InputError, match="does not exist or is private: .* `hf auth login`"):
            bundles.load(ADDRESS)


def test_an_encoder_begins_with_a_model_of_the_hub(hub, run, tiny):
    put(hub, run / "bundle")
    bundle = bundles.load(run)
    blank = jax.tree.map(np.zeros_like, bundle.variables)
    state = transfer.TrainState(np.int32(0), blank["params"], blank["batch_stats"], ())
    config = tiny.config(model__init_from=ADDRESS).model
    state, _ = transfer.start_pretrained(state, config, bundle.front_end)
    encoder = bundle.variables["params"]["encoder"]
    jax.tree.map(np.testing.assert_array_equal, state.params["encoder"], encoder)


@pytest.mark.slow
def test_the_environment_names_the_hub_and_the_cache(hub, run, tmp_path):
    """HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE, in programs of their own."""
    put(hub, run / "bundle")
    program = f"import ergl_jax; print(ergl_jax.load('{ADDRESS}'))"
    for offline in ("0", "1"):
        done = python(
            *("-c", program),
            HF_ENDPOINT=hub.url,
            HF_HOME=str(tmp_path / "home"),
            HF_HUB_OFFLINE=offline,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == repr(ergl_jax.load(run))
        hub.repositories.clear()
