"""Recipes of several runs: stages, the hand-over of their weights, closed-form fits."""

import json
import os
import shutil

import jax
import numpy as np
import pytest
from made_configs import small, synthetic
from scipy.special import softmax

from configs import ergl, mltf, nnf, rgasc
from ergl_jax import bundle as bundles
from ergl_jax.baselines.nnf import NNFCNN, NNFEnsemble
from ergl_jax.datasets import sources
from ergl_jax.errors import InputError
from ergl_jax.recipes import closed_form, stages
from ergl_jax.recipes.ensemble_selection import select_ensemble
from ergl_jax.recipes.svm import fit_svm
from ergl_jax.training import evaluate
from ergl_jax.training.checkpoints import Checkpoints
from ergl_jax.training.step import TrainState, make_predict, replicate


def test_stages_differ_in_their_fields_and_seeds():
    config = synthetic(rgasc)
    for number, (name, each) in enumerate(stages.configs(config)):
        assert name == each.train.loss == ("scene", "events")[number]
        assert each.stages == () and each.seed == 1000 * (number + 1)
        same = {"train.loss": "rgasc_log", "stages": config.stages, "seed": 0}
        assert each.replace(**same) == config
    names = [name for name, _ in stages.configs(synthetic(nnf))]
    assert names == [f"member{number}" for number in range(6)]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("scene", r"stages\[0\]: it is not an object of fields"),
        ({"name": "a", "take": {}}, r"stages\[0\]: set is missing"),
        ({"name": "a", "set": {"train.nonsense": 1}, "take": {}}, "train.nonsense is"),
        ({"name": "a", "set": {"train.epochs": "x"}, "take": {}}, "train.epochs='x'"),
        ({"name": "a", "set": {"train.loss": "x"}, "take": {}}, "train.loss='x' is not"),
        ({"name": "a", "set": {}, "take": {"scene": 1}}, "take.scene=1 is not text"),
        ({"name": "..", "set": {}, "take": {}}, "name='..' must be unique"),
    ],
)
def test_a_wrong_stage_is_an_error_before_anything_is_trained(stage, message, tmp_path):
    config = synthetic(ergl).replace(stages=(stage,))
    with pytest.raises(InputError, match=message):
        stages.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def predictions(bundle, split):
    variables = replicate(dict(bundle.variables))
    return evaluate.predict(make_predict(bundle.build()), variables, split)


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """MLTF, trained: its configuration and work directory."""
    directory = tmp_path_factory.mktemp("mltf")
    config = small(mltf, directory)
    stages.train(config, directory / "run")
    return config, directory / "run"


@pytest.mark.slow
class TestMLTF:
    def test_is_the_network_of_its_stage_and_an_svm_fitted_to_the_training_split(self, machine):
        config, workdir = machine
        dataset, bundle = sources.open_dataset(config.data), bundles.load(workdir / "bundle")
        network = bundles.load(workdir / "stages" / "network" / "bundle").variables
        for kind, head in (("params", "scene"), ("batch_stats", None)):
            mine = {k: x for k, x in bundle.variables[kind].items() if k != "svm"}
            theirs = {k: x for k, x in network[kind].items() if k != head}
            jax.tree.map(np.testing.assert_array_equal, mine, theirs)
        train, held = (predictions(bundle, dataset.split(s)) for s in ("train", "validation"))
        validation = held.embedding, held.scene
        scenes = len(dataset.scenes)
        want = fit_svm(train.embedding, train.scene, num_scenes=scenes, validation=validation)
        for name, found in bundle.variables["params"]["svm"].items():
            np.testing.assert_allclose(found, want[name], atol=1e-4)
        logits = held.embedding @ want["kernel"] + want["bias"]
        np.testing.assert_allclose(held.scene_logits, logits, atol=1e-3)

    def test_resumes_after_its_stage_and_adds_its_seconds(self, machine):
        """As if it had been killed there: the stage is not trained again."""
        config, workdir = machine
        stage = workdir / "stages" / "network" / "results.json"
        before = os.stat(stage).st_mtime_ns
        (workdir / "results.json").unlink()
        results = stages.train(config, workdir)
        assert os.stat(stage).st_mtime_ns == before
        assert results["training_seconds"] > json.loads(stage.read_text())["training_seconds"] > 0

    def test_is_fitted_again_after_a_full_disk(self, machine, monkeypatch, tmp_path):
        config, workdir = machine
        shutil.copytree(workdir / "stages", tmp_path / "stages")
        (stage,) = config.stages
        stage = {**stage, "set": stage["set"] | {"train.epochs": 1}}
        config = config.replace(**{"train.epochs": 2, "stages": (stage,)})  # the fit is the last

        def full(*_):
            raise InputError("make space")

        with monkeypatch.context() as patch, pytest.raises(InputError, match="make space"):
            patch.setattr(Checkpoints, "save", full)
            stages.train(config, tmp_path)
        found = stages.train(config, tmp_path)
        assert found["epoch"] == 2
        assert found["test"] == json.loads((workdir / "results.json").read_text())["test"]

    @pytest.mark.parametrize(
        ("where", "message"),
        [("", "stages.0.set.train.loss was None"), ("stages/network", "train.loss was 'ergl'")],
    )
    def test_of_another_stage_is_an_error(self, machine, tmp_path, where, message):
        """Also where the stage alone has begun."""
        config, workdir = machine
        shutil.copytree(workdir / where, tmp_path / "run" / where)
        (stage,) = config.stages
        stage = {**stage, "set": stage["set"] | {"train.loss": "scene"}}
        files = sorted(tmp_path.rglob("*"))
        with pytest.raises(InputError, match=f"{where} belongs to .* settings: {message}"):
            stages.train(config.replace(stages=(stage,)), tmp_path / "run")
        assert sorted(tmp_path.rglob("*")) == files

    @pytest.mark.parametrize(
        ("take", "message"),
        [
            ({"svm": "scene"}, "its scene does not fit as 'svm'"),
            ({"fc": "nowhere"}, "its nowhere does not fit as 'fc'"),
            ({"fc": ""}, "its model does not fit as 'fc'"),
        ],
    )
    def test_a_part_that_does_not_fit_is_an_error(self, machine, take, message):
        config, workdir = machine
        other = config.replace(stages=({**config.stages[0], "take": take},))
        bundle = bundles.load(workdir / "bundle")
        state = TrainState(0, bundle.variables["params"], bundle.variables["batch_stats"], ())
        with pytest.raises(InputError, match=f"stage 'network': {message} of model.name='mltf'"):
            stages.hand_over(state, other, workdir)


@pytest.mark.slow
def test_an_ensemble_is_the_weighted_mean_of_its_stages(tmp_path):
    """Without validation clips all weights are equal."""
    fields = {"data.validation_fraction": 0.0, "data.train_clips_per_scene": 1}
    config = small(nnf, tmp_path, **fields)
    stages.train(config, tmp_path / "run")
    bundle = bundles.load(tmp_path / "run" / "bundle")
    np.testing.assert_allclose(bundle.variables["batch_stats"]["weights"], 1 / 6)
    split = sources.open_dataset(config.data).split("test")
    members = [bundles.load(path) for path in sorted(tmp_path.glob("run/stages/*/bundle"))]
    each = [softmax(predictions(member, split).scene_logits, axis=1) for member in members]
    assert min(np.abs(a - b).max() for a, b in zip(each, each[1:], strict=False)) > 1e-6
    mine = softmax(predictions(bundle, split).scene_logits, axis=1)
    np.testing.assert_allclose(mine, np.mean(each, axis=0), atol=1e-5)


def test_weights_are_selected_by_the_predictions_for_validation_clips(tiny):
    """Of two untrained members that disagree."""
    dataset = sources.open_dataset(tiny.config().data)
    split = dataset.split("validation")
    model = NNFEnsemble(len(dataset.scenes), 32, members=("mel", "filtered"))
    shape = (1, *split[0]["log_mel"].shape)
    init = jax.jit(lambda x: model.init(jax.random.key(1), x, train=False))
    variables = jax.device_get(init(np.zeros(shape, np.float32)))
    each = []
    for index, source in enumerate(model.members):
        scene = variables["params"][f"member{index}"]["scene"]
        scene["kernel"] = 50 * scene["kernel"]
        member = NNFCNN(model.num_scenes, 32, input=source)
        own = {kind: tree[f"member{index}"] for kind, tree in variables.items()}
        found = evaluate.predict(make_predict(member), replicate(own), split)
        each.append(softmax(found.scene_logits, axis=1))
    want = select_ensemble(np.stack(each), found.scene)
    assert np.abs(want - 0.5).min() > 0  # unlike the first weights
    found = closed_form.ensemble(variables, make_predict(model), dataset)
    np.testing.assert_array_equal(
        found["batch_stats"].pop("weights"), want.astype(np.float32), strict=True
    )
    del variables["batch_stats"]["weights"]
    jax.tree.map(np.testing.assert_array_equal, found, variables)
