"""Training in stages, and what is fitted at once."""

import json
import os
import shutil

import jax
import numpy as np
import pytest
from scipy.special import softmax

from configs import ergl, mltf, nnf, rgasc
from ergl_jax import bundle as bundles
from ergl_jax.baselines.nnf import NNFCNN, NNFEnsemble
from ergl_jax.datasets import sources
from ergl_jax.errors import InputError
from ergl_jax.inference.classify import Model
from ergl_jax.recipes import closed_form, fits, stages
from ergl_jax.training import evaluate, train
from ergl_jax.training.checkpoints import Checkpoints
from ergl_jax.training.step import TrainState, make_predict, replicate


def small(file, directory, **overrides):
    """A system on 20 clips of 2 s, as narrow as can be, for an epoch."""
    config = file.get_config("synthetic")
    with config.unlocked():
        config.data.data_dir = str(directory / "data")
        config.data.clip_seconds = 2.0
        config.data.train_clips_per_scene, config.data.test_clips_per_scene = 4, 1
        config.data.validation_fraction = 0.25
        config.model.encoder.width_divisor = 32
        config.train.batch_size, config.train.epochs = 10, 1
        config.optimizer.warmup_epochs = 0.0
        config.augment.time_masks = config.augment.mel_masks = 0
        config.augment.roll = False
        config.update_from_flattened_dict(
            {name.replace("__", "."): value for name, value in overrides.items()}
        )
    return config


def with_stages(*listed):
    config = ergl.get_config("synthetic")
    with config.unlocked():
        config.stages = listed
    return config


class TestConfigs:
    def test_differ_in_what_is_set_and_in_the_seed(self):
        config = rgasc.get_config("synthetic")
        for number, (name, each) in enumerate(stages.configs(config)):
            assert name == each.train.loss == ("scene", "events")[number]
            assert each.stages == () and each.seed == 1000 * (number + 1)
            with each.unlocked():
                each.train.loss, each.stages, each.seed = "rgasc_log", config.stages, 0
            assert each.to_dict() == config.to_dict()

    def test_leave_the_final_one_as_it_is(self):
        config = nnf.get_config("synthetic")
        before = config.to_json()
        assert [name for name, _ in stages.configs(config)] == [f"member{i}" for i in range(6)]
        assert config.to_json() == before

    @pytest.mark.parametrize(
        ("stage", "message"),
        [
            ("scene", r"stages\[0\]: what it holds is no object of fields"),
            ({"set": {}, "take": {}}, r"stages\[0\]: name is missing"),
            ({"name": "a", "take": {}}, r"stages\[0\] \(a\): set is no object"),
            ({"name": "a", "set": {}}, r"stages\[0\] \(a\): take is no object"),
            ({"name": "a", "set": {"train.nonsense": 1}, "take": {}}, "train.nonsense is no field"),
            ({"name": "a", "set": {"train.epochs": "x"}, "take": {}}, "set.train.epochs='x'"),
            ({"name": "a", "set": {"train.loss": "x"}, "take": {}}, "train.loss='x' is not one"),
            ({"name": "a", "set": {3: 4}, "take": {}}, r"\(a\): set.3=4: no such field"),
            ({"name": "a", "set": {"model": 1}, "take": {}}, "set.model=1: no such field"),
            ({"name": "a", "set": {}, "take": {"scene": 1}}, r"\(a\): take.scene=1 is no text"),
            ({"name": "a", "set": {}, "take": {}, "gives": {}}, r"\(a\): gives is no field"),
            ({"name": "..", "set": {}, "take": {}}, "name a directory of its own"),
            ({"name": "a/b", "set": {}, "take": {}}, "name a directory of its own"),
        ],
    )
    def test_a_wrong_one_is_told_before_anything_is_trained(self, stage, message, tmp_path):
        with pytest.raises(InputError, match=message):
            train.train(with_stages(stage), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_two_of_one_name_are_told(self):
        stage = {"name": "a", "set": {}, "take": {}}
        with pytest.raises(InputError, match=r"stages\[1\] \(a\): name a directory of its own"):
            list(stages.configs(with_stages(stage, stage)))


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """MLTF, trained: its configuration and work directory."""
    directory = tmp_path_factory.mktemp("mltf")
    config = small(mltf, directory)
    train.train(config, directory / "run")
    return config, directory / "run"


def predictions(bundle, split):
    variables = replicate(dict(bundle.variables))
    return evaluate.predict(make_predict(bundle.build()), variables, split, 8)


class TestMachine:
    def test_has_the_network_of_its_stage(self, machine):
        config, workdir = machine
        network = bundles.load(stages.directory(workdir, "network") / "bundle").variables
        final = bundles.load(workdir / "bundle").variables
        for kind in ("params", "batch_stats"):
            mine = {k: x for k, x in final[kind].items() if k != "svm"}
            theirs = {k: x for k, x in network[kind].items() if k != "scene"}
            jax.tree.map(np.testing.assert_array_equal, mine, theirs)

    def test_is_fitted_to_what_the_network_makes_of_the_training_split(self, machine):
        config, workdir = machine
        dataset, bundle = sources.open_dataset(config.data), bundles.load(workdir / "bundle")
        train, held = (predictions(bundle, dataset.split(s)) for s in ("train", "validation"))
        expected = fits.fit_svm(
            train.embedding,
            train.scene,
            num_scenes=len(dataset.scenes),
            validation=(held.embedding, held.scene),
        )
        found = bundle.variables["params"]["svm"]
        np.testing.assert_allclose(found["kernel"], expected.kernel, atol=1e-4)
        np.testing.assert_allclose(found["bias"], expected.bias, atol=1e-4)
        np.testing.assert_allclose(
            held.scene_logits, held.embedding @ expected.kernel + expected.bias, atol=1e-3
        )

    def test_counts_the_seconds_of_its_stage(self, machine):
        _, workdir = machine
        mine, stage = (
            json.loads((path / "results.json").read_text())["training_seconds"]
            for path in (workdir, stages.directory(workdir, "network"))
        )
        assert mine > stage > 0

    def test_goes_on_after_its_stage(self, machine):
        """As if it had been killed there: the stage is not trained again."""
        config, workdir = machine
        stage = stages.directory(workdir, "network") / "results.json"
        before = os.stat(stage).st_mtime_ns
        (workdir / "results.json").unlink()
        train.train(config, workdir)
        assert os.stat(stage).st_mtime_ns == before and (workdir / "results.json").exists()

    def test_that_could_not_be_kept_is_fitted_again(self, machine, monkeypatch, tmp_path):
        """The same command goes on after a full disk, as its line says."""
        shutil.copytree(machine[1] / "stages", tmp_path / "stages")
        config = machine[0].copy_and_resolve_references()
        config.train.epochs = 2  # the machine counts as the last
        (stage,) = config.stages
        config.stages = ({**stage, "set": stage["set"] | {"train.epochs": 1}},)

        def full(*_):
            raise InputError("make space")

        with monkeypatch.context() as patch, pytest.raises(InputError, match="make space"):
            patch.setattr(Checkpoints, "save", full)
            train.train(config, tmp_path)
        found = train.train(config, tmp_path)
        assert found["epoch"] == 2
        assert found["test"] == json.loads((machine[1] / "results.json").read_text())["test"]

    def test_of_other_settings_is_refused(self, machine):
        config, workdir = machine
        config = config.copy_and_resolve_references()
        config.optimizer.learning_rate = 1.0
        with pytest.raises(InputError, match="optimizer.learning_rate was 0.002, is 1.0"):
            train.train(config, workdir)

    @pytest.mark.parametrize(
        ("where", "told"),
        [
            ("", "stages.0.set.train.fit was 'steps', is None; stages.0.set.train.loss was None"),
            ("stages/network", "train.loss was 'ergl', is 'scene'"),
        ],
    )
    def test_of_another_stage_is_refused(self, machine, tmp_path, where, told):
        """Also where the stage alone has been begun."""
        config, workdir = machine
        shutil.copytree(workdir / where, tmp_path / "run" / where)
        with config.copy_and_resolve_references().unlocked() as other:
            other.stages = ({**config.stages[0], "set": {"model.variant": "cnn"}},)
            other.stages[0]["set"] |= {"train.loss": "scene"}
            if where:
                other.stages[0]["set"] |= {"train.fit": "steps"}
        files = sorted(tmp_path.rglob("*"))
        with pytest.raises(InputError, match=f"{where} belongs to .* settings: {told}"):
            train.train(other, tmp_path / "run")
        assert sorted(tmp_path.rglob("*")) == files

    @pytest.mark.parametrize(
        ("take", "told"),
        [
            ({"svm": "scene"}, "its scene does not fit as 'svm'"),
            ({"nowhere": "fc"}, "its fc does not fit as 'nowhere'"),
            ({"fc": "nowhere"}, "its nowhere does not fit as 'fc'"),
            ({"nowhere": "neither"}, "its neither does not fit as 'nowhere'"),
            ({"fc": ""}, "its model does not fit as 'fc'"),
        ],
    )
    def test_a_part_that_does_not_fit_is_told(self, machine, take, told):
        config, workdir = machine
        with config.copy_and_resolve_references().unlocked() as other:
            other.stages = ({**other.stages[0], "take": take},)
        bundle = bundles.load(workdir / "bundle")
        state = TrainState(0, bundle.variables["params"], bundle.variables["batch_stats"], ())
        with pytest.raises(InputError, match=f"stage 'network': {told} of model.name='mltf'"):
            stages.start(state, other, workdir)


def test_an_ensemble_is_the_weighted_mean_of_its_stages(tmp_path):
    """Without validation clips all members count alike."""
    config = small(nnf, tmp_path, data__validation_fraction=0.0, data__train_clips_per_scene=1)
    train.train(config, tmp_path / "run")
    bundle = bundles.load(tmp_path / "run" / "bundle")
    np.testing.assert_allclose(bundle.variables["batch_stats"]["weights"], 1 / 6)
    split = sources.open_dataset(config.data).split("test")
    members = stages.bundles(config, tmp_path / "run")
    each = [softmax(predictions(member, split).scene_logits, axis=1) for member in members]
    assert min(np.abs(a - b).max() for a, b in zip(each, each[1:], strict=False)) > 1e-6
    mine = softmax(predictions(bundle, split).scene_logits, axis=1)
    np.testing.assert_allclose(mine, np.mean(each, axis=0), atol=1e-5)
    clip = np.random.default_rng(0).normal(size=32000).astype(np.float32) / 10
    named = Model(bundle).classify(clip, sample_rate=16000).scenes
    assert sum(named.values()) == pytest.approx(1, abs=1e-5) and set(named) == set(bundle.scenes)


@pytest.fixture(scope="module")
def ensemble(tiny):
    """Two members from chance that disagree: dataset, model, variables."""
    dataset = sources.open_dataset(tiny.config().data)
    model = NNFEnsemble(len(dataset.scenes), members=("mel", "filtered"), width_divisor=32)
    shape = (1, *dataset.split("train")[0]["log_mel"].shape)
    variables = jax.device_get(
        jax.jit(lambda x: model.init(jax.random.key(1), x, train=False))(
            np.zeros(shape, np.float32)
        )
    )
    for index in (0, 1):
        scene = variables["params"][f"member{index}"]["scene"]
        scene["kernel"] = 50 * scene["kernel"]
    return dataset, model, variables


class TestEnsemble:
    def test_is_weighed_by_what_its_members_say_of_validation(self, ensemble):
        dataset, model, variables = ensemble
        split = dataset.split("validation")
        each = []
        for index, seen in enumerate(model.members):
            member = NNFCNN(model.num_scenes, input=seen, width_divisor=32)
            own = {kind: tree[f"member{index}"] for kind, tree in variables.items()}
            found = evaluate.predict(make_predict(member), replicate(own), split, 8)
            each.append(softmax(found.scene_logits, axis=1))
        expected = fits.select_ensemble(np.stack(each), found.scene)
        assert np.abs(expected - 0.5).min() > 0  # no test of what it began with
        found = closed_form.fit("ensemble", variables, make_predict(model), dataset)
        weights = found["batch_stats"].pop("weights")
        np.testing.assert_array_equal(weights, expected.astype(np.float32))
        assert weights.dtype == np.float32
        before = {name: x for name, x in variables["batch_stats"].items() if name != "weights"}
        jax.tree.map(np.testing.assert_array_equal, found["batch_stats"], before)
        jax.tree.map(np.testing.assert_array_equal, found["params"], variables["params"])
        np.testing.assert_array_equal(variables["batch_stats"]["weights"], [0.5, 0.5])
