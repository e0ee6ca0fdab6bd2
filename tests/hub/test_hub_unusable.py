"""Addresses, repositories and networks that no bundle comes from: one line each."""

import importlib.util

import pytest
from fake_hub import STRANGER
from made_hub import ADDRESS, put, refused

from ergl_jax import bundle as bundles
from ergl_jax.cli import main
from ergl_jax.errors import InputError
from ergl_jax.hub import bundle_path

pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("hf://me/nothing", "does not exist or is private"),
        (ADDRESS + "@v9", "the repository has no such revision"),
        ("hf://me/--x", "is not hf://OWNER/NAME or hf://OWNER/NAME@REVISION: "),
    ],
)
def test_not_found(hub, run, address, reason):
    put(hub, run / "bundle")
    with pytest.raises(InputError, match=reason):
        bundles.load(address)


@pytest.mark.parametrize(
    "address",
    ["hf://", "hf://scenes", "hf://me/scenes/bundle", "hf://datasets/me/scenes", ADDRESS + "@"],
)
def test_an_address_of_another_form(address):
    with pytest.raises(InputError, match="is not hf://OWNER/NAME or"):
        bundle_path(address)
    with pytest.raises(InputError, match="is not hf://OWNER/NAME or"):
        bundles.load(address)


@pytest.mark.parametrize(
    "command",
    [
        "classify a.wav --bundle",
        "tag a.wav --bundle",
        "explain a.wav --out=b --bundle",
        "evaluate a",
        "export --out=b --bundle",
        "demo --bundle",
        "doctor --bundle",
        "train a --out=b --init-from",
        "train a --out=b --tagger",
    ],
)
def test_every_command_checks_an_address(command, capsys):
    words = command.split()
    at = 1 if words[0] == "evaluate" else len(words)
    assert main([*words[:at], "hf://me", *words[at:]]) == 2
    refused(capsys, "hf://me is not hf://OWNER/NAME or hf://OWNER/NAME@REVISION")


def test_gated(hub, run, monkeypatch):
    put(hub, run / "bundle", gated=True)
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    with pytest.raises(InputError, match="is gated: accept its conditions .* `hf auth login`"):
        bundles.load(ADDRESS)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file(hub, run, name):
    (run / "bundle" / name).unlink()
    put(hub, run / "bundle")
    with pytest.raises(InputError, match=f"{ADDRESS} is not a bundle: it has no {name}"):
        bundles.load(ADDRESS)


def test_weights_of_another_kind_of_model_are_not_downloaded(hub, run):
    (run / "bundle" / "config.json").write_text('{"model_type": "bert"}')
    put(hub, run / "bundle")
    with pytest.raises(InputError, match=f"{ADDRESS}/config.json is not a bundle's: format"):
        bundles.load(ADDRESS)
    assert not any("safetensors" in line for line in hub.asked)


def test_a_config_of_other_weights(hub, run):
    path = run / "bundle" / "config.json"
    path.write_text(path.read_text().replace('"licence": "', '"licence": "not '))
    put(hub, run / "bundle")
    with pytest.raises(InputError, match=f"{ADDRESS}/config.json is not the one that model"):
        bundles.load(ADDRESS)


def test_no_network(hub, run, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=f"{ADDRESS} can't be reached: "):
        bundles.load(ADDRESS)


def test_a_broken_server(hub):
    hub.broken = 502
    with pytest.raises(InputError, match=f"{ADDRESS} can't be used: the Hub answers 502, the"):
        bundles.load(ADDRESS)


def test_without_the_package(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    absent = lambda name: None if name == "huggingface_hub" else find(name)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    with pytest.raises(InputError, match=rf'{ADDRESS}: .*pip install "\.\[hub\]"'):
        bundles.load(ADDRESS)
