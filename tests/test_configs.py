"""Configurations: one tree of fields, every one of them read."""

import importlib
import re
from pathlib import Path

import pytest
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from configs import ergl, tables
from ergl_jax.config import Config

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "configs").glob("*.py"))
OF_SYSTEMS = sorted(
    {file.__name__.split(".")[1] for file, *_ in tables.SYSTEMS.values()} - {"ergl"}
)
ARGUMENTS = ("tut2018", "tut2018,ergl", "folder", "synthetic", "soundscapes,ergl")


def config_of(name):
    """`file` or `file:argument`, as run.py takes it."""
    file, *argument = name.split(":")
    return importlib.import_module(f"configs.{file}").get_config(*argument)


CONFIGS = {
    name: config_of(name)
    for name in (
        *(f"{file}:{source}" for file in ("ergl", "ergl_dynamic") for source in ergl.SOURCES),
        *(f"{file}:{argument}" for file in OF_SYSTEMS for argument in ARGUMENTS),
        "esc10",
        "tau2022",
        "test",
    )
}


def leaves(config):
    """field -> value of a nested configuration."""
    return flatten_dict(config.to_dict(), sep=".")


def test_every_file_is_tested():
    tested = {name.split(":")[0] for name in CONFIGS}
    assert {path.stem for path in FILES} == tested | {"tables"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_loads_and_says_its_command(load_script, path):
    module = load_script(path)
    assert isinstance(module.get_config(), ConfigDict)
    assert f"python run.py --config=configs/{path.name}" in module.__doc__


def test_all_pass_the_schema():
    for name, config in CONFIGS.items():
        fields = config.to_dict()
        if fields["model"]["name"] == "pann_scene":
            fields["model"]["init_from"] = "bundle"
        if fields["data"]["source"] == "folder" and not fields["data"]["manifest"]:
            fields["data"]["manifest"] = "my.csv"
        Config.from_dict(fields, f"{name}: ")


def test_every_field_is_read():
    """By the package, else it does nothing."""
    code = "\n".join(p.read_text() for p in (ROOT / "ergl_jax").rglob("*.py") if p.stem != "config")
    unread = {name.split(".")[-1] for name in leaves(ergl.get_config())}
    assert not {name for name in unread if not re.search(rf"\.{name}\b", code)}


def test_a_source_and_a_recipe_must_be_known():
    with pytest.raises(ValueError, match="tut2018, synthetic, delays, folder"):
        ergl.get_config("nonsense")
    for argument, known in (("tut2018,paper", "native, ergl"), ("synthetic,native", "ergl")):
        with pytest.raises(ValueError, match=f"the recipes of .* are {known}$"):
            ergl.for_system(argument, "mtl")


def test_a_recipe_changes_the_systems_training():
    """Adam at 2e-4 on its own features, or AdamW at 1e-3 on ERGL's."""
    native, ours, ergls = (leaves(config_of(name)) for name in ("mtl", "mtl:tut2018,ergl", "ergl"))
    assert native["optimizer.weight_decay"] == 0 and native["data.front_end"] == "mtl"
    different = {field for field in ours if ours[field] != ergls[field]}
    assert different == {"model.name", "train.loss"}


def test_the_papers_settings():
    """§3.1 and §3.2, and what PyTorch leaves unsaid."""
    fields = leaves(ergl.get_config())
    expected = {
        "data.front_end": "paper",
        "data.clip_seconds": 10.0,
        "data.num_events": 25,
        "data.validation_fraction": 0.3,
        "model.encoder.architecture": "cnn14",
        "model.encoder.width_divisor": 1,
        "model.channels": 64,
        "optimizer.learning_rate": 1e-3,
        "optimizer.weight_decay": 1e-2,
        "optimizer.schedule": "constant",
        "train.batch_size": 64,
        "train.epochs": 300,
    }
    assert expected.items() <= fields.items()
    assert not any(value for field, value in fields.items() if field.startswith("augment."))
