"""Configurations: one tree of fields, every one of them read."""

import importlib
from pathlib import Path

import ml_collections
import numpy as np
import pytest
import soundfile
from ml_collections.config_dict import ConfigDict

from configs import ergl, tables
from ergl_jax.datasets import sources
from ergl_jax.training import train

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
        *(f"ergl:{source}" for source in ergl.SOURCES),
        *(f"{file}:{argument}" for file in OF_SYSTEMS for argument in ARGUMENTS),
        "esc10",
        "test",
    )
}


def leaves(config, prefix=""):
    """field -> value of a nested configuration."""
    found = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            found |= leaves(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def types(config):
    return {field: type(value) for field, value in leaves(config).items()}


def test_every_file_is_tested():
    tested = {name.split(":")[0] for name in CONFIGS}
    assert {path.stem for path in FILES} == tested | {"tables"}
    assert set(sources.SOURCES) == {config.data.source for config in CONFIGS.values()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_loads_and_says_its_command(load_script, path):
    module = load_script(path)
    assert isinstance(module.get_config(), ml_collections.ConfigDict)
    assert f"python run.py --config=configs/{path.name}" in module.__doc__


@pytest.mark.parametrize("name", CONFIGS)
def test_all_have_the_fields_and_types_of_the_papers(name):
    assert types(CONFIGS[name]) == types(ergl.get_config())


@pytest.mark.parametrize("name", CONFIGS)
def test_an_unknown_field_is_an_error(name):
    config = CONFIGS[name]
    for group in (config, *(value for value in config.values() if isinstance(value, ConfigDict))):
        with pytest.raises(AttributeError):
            group.nonsense = 1


def test_a_source_must_be_known():
    with pytest.raises(ValueError, match="tut2018, synthetic, folder"):
        ergl.get_config("nonsense")


@pytest.mark.parametrize(
    ("argument", "known"), [("tut2018,paper", "native, ergl"), ("synthetic,native", "ergl")]
)
def test_a_recipe_must_be_known(argument, known):
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


class Recorder:
    """A configuration that notes which fields are read as attributes.

    Being copied whole (`to_json`, `to_dict`) or checked by name (`config[name]`) is no use of a
    field.
    """

    def __init__(self, config, seen, prefix=""):
        self._config, self._seen, self._prefix = config, seen, prefix

    def __getattr__(self, name):
        value = getattr(self._config, name)
        if isinstance(value, ConfigDict):
            return Recorder(value, self._seen, f"{self._prefix}{name}.")
        if name in self._config:
            self._seen.add(self._prefix + name)
        return value

    def __getitem__(self, name):
        return self._config[name]


def test_the_recorder_notes_attributes_alone():
    seen = set()
    config = Recorder(ergl.get_config(), seen)
    assert config.seed == config["seed"] == 0 and config.train["epochs"] == 300
    assert config.to_json() and config.model.to_dict() and config.data.resident == "auto"
    assert seen == {"seed", "data.resident"}


def test_every_field_is_read(tiny, tmp_path):
    """By a run on synthetic data or by the other sources of data; else it is dead."""
    seen = set()
    train.train(Recorder(tiny.config(), seen), tmp_path / "run")
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    (tmp_path / "manifest.csv").write_text("file,scene,split,fold\na.wav,a,train,1\n")
    for overrides in (
        {"data__source": "tut2018", "data__root": str(tmp_path)},
        {"data__source": "folder", "data__manifest": str(tmp_path / "manifest.csv")},
    ):
        sources.corpus(Recorder(tiny.config(**overrides), seen).data)
    assert seen == set(leaves(ergl.get_config()))
