"""Every system of the paper's tables: its size in docs/systems.md, its training, its bundle."""

import csv
import math
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export as jax_export

import ergl_jax
from configs import tables
from configs import test as test_config
from ergl_jax import bundle as bundles
from ergl_jax import registry
from ergl_jax.audio import get_front_end
from ergl_jax.config import Config, ModelConfig
from ergl_jax.datasets import sources
from ergl_jax.labels import AUDIOSET
from ergl_jax.recipes import stages
from ergl_jax.recipes.tables import size
from ergl_jax.systems import SYSTEMS

ROOT = Path(__file__).resolve().parents[2]
ROWS = [name for name in tables.SYSTEMS if name[0] not in "nU" or not name[1:].isdecimal()]
# Rows that train as another but for one number, and the ensemble, which test_stages.py trains.
ELSEWHERE = {"pann_finetuned", "rgasc_prob", "ergl_without_mel", "nnf_cnnens"}


def row(name, source="tut2018"):
    config = tables.get_config()
    with config.unlocked():
        config.rows, config.source = (name,), source
    return tables.rows(config)[0]


def tiny(name, directory, pann):
    """A row with one clip a scene, all in one batch: an epoch is a step."""
    config, example = row(name, "synthetic").config, test_config.get_config()
    with config.unlocked():
        config.data.data_dir = str(directory)
        config.data.clip_seconds = example.data.clip_seconds
        config.data.num_events = example.data.num_events
        config.data.train_clips_per_scene = config.data.test_clips_per_scene = 1
        config.train.batch_size, config.train.epochs = 10, 1
        config.optimizer.warmup_epochs = 0.0
        config.augment.update({"roll": False, "time_masks": 0, "mel_masks": 0})
        config.model.channels = 4
        config.model.encoder.width_divisor = 32
        if config.model.name in ("ergl", "cnn", "pann_scene"):
            config.model.encoder.architecture = "cnn6"
        if config.model.name == "pann_scene":
            config.model.init_from = str(pann)
    return Config.from_dict(config.to_dict())


def test_a_table_has_every_system():
    assert {row(name).config.model.name for name in ROWS} == SYSTEMS.keys() - {
        "pann",
        "ergl_dynamic",
    }
    assert set(ROWS) <= {name for table in tables.TABLES.values() for name in table}


@pytest.mark.parametrize("name", ROWS)
def test_docs_have_its_size_and_published_score(name):
    """The table of docs/systems.md: at full width, with ten scenes."""
    text = (ROOT / "docs" / "systems.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    parameters, gmac = size(row(name).config, 10)
    assert cells[1:4] == [f"{parameters:,}", f"{gmac:.3g}", row(name).published]


@pytest.fixture(scope="module")
def pann(tmp_path_factory):
    """A PANN's bundle of random weights."""
    directory = tmp_path_factory.mktemp("pann") / "bundle"
    fields = test_config.get_config().model.to_dict() | {"name": "pann"}
    config = ModelConfig.from_saved(fields)
    model = registry.build(config, num_scenes=0, num_events=len(AUDIOSET))
    variables = jax.jit(lambda: model.init(jax.random.key(0), np.zeros((1, 64, 64)), train=False))()
    bundles.Bundle(
        model=config,
        variables=jax.device_get(variables),
        scenes=(),
        events=AUDIOSET,
        front_end=get_front_end("panns_16k"),
        clip_seconds=10.0,
        pad="zero",
        licence="none",
        dataset="none",
    ).save(directory)
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ROWS if name not in ELSEWHERE])
def test_trains_a_step_and_its_bundle_predicts_the_same(name, tmp_path, pann):
    config = tiny(name, tmp_path / "data", pann)
    results = stages.train(config, tmp_path / "run")
    assert math.isfinite(results["test"]["scene_loss"]) and results["epoch"] == 1
    scenes = len(sources.corpus(config.data).scenes)
    assert (results["parameters"], results["gmac_per_clip"]) == size(config, scenes)
    # The bundle's weights are read anew, and its front end makes the features from samples.
    model = ergl_jax.load(tmp_path / "run" / "bundle")
    with open(tmp_path / "run" / "predictions.csv", newline="", encoding="utf-8") as file:
        line = next(csv.DictReader(file))
    front_end = model.bundle.front_end
    clip = next(c for c in sources.corpus(config.data).clips if c.name == line["clip"])
    samples = clip.load(front_end.sample_rate, front_end.channel)
    found = model.classify(samples, sample_rate=front_end.sample_rate)
    for scene, probability in found.scenes.items():
        assert probability == pytest.approx(float(line[scene]), abs=2e-3)
    assert set(found.events) == set(model.bundle.events)
    assert bool(found.events) == SYSTEMS[config.model.name].events
    assert model.bundle.model == config.model


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_exports_for_any_number_of_clips(name):
    """Traced only, at a narrow width; test_export.py compares outputs."""
    config = row(name).config
    with config.unlocked():
        config.model.encoder.width_divisor = 32
        config.data.num_events = 5
    front_end = get_front_end(config.data.front_end)
    shape = (front_end.num_frames(10.0), front_end.n_mels)
    model = registry.build(config.model, num_scenes=10, num_events=5)

    def init(x):
        return model.init(jax.random.key(0), x, train=False)

    variables = jax.eval_shape(init, jax.ShapeDtypeStruct((1, *shape), np.float32))
    (batch,) = jax_export.symbolic_shape("batch")
    exported = jax_export.export(jax.jit(lambda v, x: model.apply(v, x, train=False).scene_logits))
    clips = jax.ShapeDtypeStruct((batch, *shape), np.float32)
    assert str(exported(variables, clips).out_avals[0].shape) == "(batch, 10)"
