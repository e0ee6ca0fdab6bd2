"""The schema: every field checked once, by type, range and allowed values."""

import dataclasses
import json

import pytest

from configs import ergl, test
from ergl_jax.config import Config, DataConfig, ModelConfig
from ergl_jax.errors import InputError
from ergl_jax.training import workdirs

TINY = Config.from_dict(test.get_config().to_dict())


def test_a_file_and_the_dataclasses_have_the_same_fields():
    found = ergl.get_config().to_dict()
    assert Config.from_dict(found).to_dict() == found


def test_the_defaults_are_the_papers_settings():
    assert Config() == Config.from_dict(ergl.get_config().to_dict())


def test_it_is_frozen_and_replaced():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TINY.train.epochs = 3
    other = TINY.replace(**{"train.epochs": 3, "seed": 7})
    assert (other.train.epochs, other.seed, TINY.train.epochs) == (3, 7, 2)


WRONG = {
    # types
    "train.epochs": ["2", 1.5, True, None, 0, -1],
    "model.mel": [1],
    "model.encoder": [3, {}],
    "data.test_folds": [4, (None,)],
    "data.events": [None, 3],
    # finite numbers, and their ranges
    "optimizer.learning_rate": [0.0, -0.1, float("nan"), float("inf")],
    "optimizer.weight_decay": [-1.0],
    "optimizer.warmup_epochs": [-1.0, 2.0],
    "model.dropout": [1.0, -0.1],
    "model.encoder.width_divisor": [0],
    "model.channels": [0],
    "model.gcn.layers": [0],
    "data.num_events": [0, 528],
    "data.clip_seconds": [0.0, 1e9],
    "data.event_threshold": [0.0, 1.1],
    "data.validation_fraction": [1.0, -0.1],
    "data.corpus_seed": [-1],
    "data.train_clips_per_scene": [0],
    "augment.crop": [-0.1, 1.0],
    "augment.mixup_alpha": [-1.0],
    "augment.time_masks": [-1],
    "train.batch_size": [0],
    "train.select_from": [0, 3],
    "seed": [-1],
    # allowed values
    "data.source": ["esc50"],
    "data.front_end": ["mel"],
    "data.pad": ["wrap"],
    "data.long": ["split"],
    "data.resident": ["maybe"],
    "model.name": ["rnn", "pann"],
    "model.variant": ["svm"],
    "model.tokens": ["word"],
    "model.gcn.gate": ["relu"],
    "model.compute_dtype": ["int8"],
    "model.encoder.architecture": ["cnn15"],
    "optimizer.schedule": ["step"],
    "train.loss": ["mae", "conditional", "nll"],
    "train.trainer": ["magic", "svm"],
    # together with the other fields
    "model.frozen": [True],
}


@pytest.mark.parametrize("field", WRONG)
def test_a_wrong_value_is_named(field):
    for value in WRONG[field]:
        with pytest.raises(InputError, match=rf"^config\.{field}\b"):
            TINY.replace(**{field: value})


WAVEGRAM = {"model.encoder.architecture": "wavegram_logmel_cnn14"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data.source": "folder"}, "set data.manifest"),
        ({"model.name": "pann_scene", "model.variant": "tags"}, "port_panns.py"),
        ({"model.name": "cnn", "train.loss": "joint"}, "ergl, bce, scene"),
        (WAVEGRAM, "config.data.front_end=.*panns_wavegram"),
        ({"data.front_end": "panns_wavegram"}, "config.data.front_end=.*wavegram_logmel_cnn14"),
        (WAVEGRAM | {"data.front_end": "panns_wavegram", "augment.mel_masks": 1}, "mel_masks=1"),
        ({"model.encoder.architecture": "resnet22", "model.encoder.time_pools": 3}, "time_pools=3"),
        ({"data.front_end": "mltf", "augment.crop": 0.5}, "augment.crop=0.5 would cut across"),
        ({"model.name": "conditional", "train.loss": "bce"}, "conditional"),
        ({"model.name": "nnf"}, "mel, filtered"),
        ({"model.name": "nnf", "model.variant": "ensemble"}, "train.trainer"),
        ({"model.name": "mltf", "model.variant": "svm", "train.trainer": "svm"}, "config.stages"),
        ({"train.epoch": 3}, "config.train.epoch is an unknown field"),
        ({"training.epochs": 3}, "config.training.epochs is an unknown field"),
    ],
)
def test_what_does_not_go_together_is_refused_with_a_remedy(fields, message):
    with pytest.raises(InputError, match=message):
        TINY.replace(**fields)


@pytest.mark.parametrize(("change", "word"), [("epochs", "missing"), ("wings", "unknown|no field")])
def test_the_tree_must_be_whole(change, word):
    found = TINY.to_dict()
    found["train"].pop(change) if change in found["train"] else found["train"].update(wings=2)
    with pytest.raises(InputError, match=rf"config\.train\.{change} is .*({word})"):
        Config.from_dict(found)


def test_a_bundles_model_may_lack_what_its_version_did_not_know():
    encoder = {"architecture": "cnn6", "width_divisor": 8, "dropout": 0.2}
    found = {"name": "cnn", "compute_dtype": "float32", "encoder": encoder, "dropout": 0.5}
    assert ModelConfig.from_saved(found | {"later": 1}).encoder.width_divisor == 8
    with pytest.raises(InputError, match="model.compute_dtype is missing"):
        ModelConfig.from_saved({"name": "cnn", "encoder": encoder, "dropout": 0.5})


def test_work_directories_of_older_versions_are_resumed(tmp_path):
    saved = json.loads(json.dumps(TINY.to_dict()))
    del saved["data"]["annotations"], saved["augment"]["crop"]
    assert DataConfig.from_saved(saved["data"]) == TINY.data
    saved["train"]["fit"] = {"sgd": "steps"}[saved["train"].pop("trainer")]
    saved["stages"] = [{"name": "a", "set": {"train.fit": "steps"}, "take": {}}]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    stage = {"name": "a", "set": {"train.trainer": "sgd"}, "take": {}}
    workdirs.check(tmp_path, TINY.to_dict() | {"stages": (stage,)})


def test_two_ways_to_write_a_path_are_the_same_setting(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    (tmp_path / "link").symlink_to(tmp_path)

    def config(manifest, data_dir="data"):
        fields = {"data.source": "folder", "data.manifest": manifest, "data.data_dir": data_dir}
        return TINY.replace(**fields).to_dict()

    saved = config("../my.csv")
    (tmp_path / "config.json").write_text(json.dumps(saved))
    same = "../my.csv", f"{tmp_path}/my.csv", f"{tmp_path}/link/my.csv", "./../deep/../my.csv"
    for manifest in same:
        workdirs.check(tmp_path, config(manifest, f"{tmp_path}/deep/data"))
    for manifest in ("my.csv", f"{tmp_path}/your.csv", "gs://bucket/my.csv"):
        with pytest.raises(InputError, match="data.manifest was '../my.csv'"):
            workdirs.check(tmp_path, config(manifest))
