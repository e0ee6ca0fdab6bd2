"""A whole run of the dynamic event graph, and what is made of its bundle."""

import json

import jax
import numpy as np
import pytest
from made_configs import small

from configs import ergl_dynamic
from ergl_jax import bundle as bundles
from ergl_jax.datasets import sources
from ergl_jax.errors import InputError
from ergl_jax.inference.classify import load
from ergl_jax.recipes import stages
from ergl_jax.recipes.sparse_relations import Graphs, fit_relations
from ergl_jax.training import evaluate
from ergl_jax.training.step import make_predict, replicate

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Configuration and work directory."""
    directory = tmp_path_factory.mktemp("dynamic")
    settings = small(ergl_dynamic, directory, **{"train.epochs": 2})
    stages.train(settings, directory / "run")
    return settings, directory / "run"


def embeddings(bundle, dataset, split):
    run, variables = make_predict(bundle.build()), replicate(dict(bundle.variables))
    return evaluate.predict(run, variables, dataset.split(split))


def test_is_its_stage_and_a_readout_fitted_to_the_graphs(trained):
    settings, workdir = trained
    dataset, bundle = sources.open_dataset(settings.data), bundles.load(workdir / "bundle")
    stage = bundles.load(workdir / "stages" / "events" / "bundle").variables["params"]
    for part in ("encoder", "activity"):
        mine = bundle.variables["params"][part]
        jax.tree.map(np.testing.assert_array_equal, mine, stage[part])
    n, scenes = len(bundle.events), len(dataset.scenes)
    splits = {}
    for split in ("train", "validation"):
        found = embeddings(bundle, dataset, split)
        nodes, edges = np.split(found.embedding, [2 * n], axis=1)
        graphs = Graphs(nodes.reshape(-1, n, 2), edges.reshape(len(edges), n, n, -1))
        splits[split] = graphs, found.scene
    want = fit_relations(*splits["train"], num_scenes=scenes, validation=splits["validation"])
    readout = bundle.variables["params"]["readout"]
    np.testing.assert_allclose(readout["nodes"]["kernel"], want.nodes, atol=1e-3)
    np.testing.assert_allclose(readout["edges"]["kernel"], want.edges, atol=1e-3)


def test_has_a_temperature_and_a_detector_of_unknown_sounds(trained):
    """Temperature and known sounds come from validation clips."""
    bundle = bundles.load(trained[1] / "bundle")
    assert bundle.known is not None and bundle.model.variant == "relations"


def test_contributions_add_up_to_the_log_odds(trained):
    """Gradient times input of a sum: exact where a scene is compared with one other."""
    model = load(trained[1] / "bundle")
    rate = model.bundle.front_end.sample_rate
    samples = np.random.default_rng(0).normal(0, 0.1, 2 * rate).astype(np.float32)
    explanation = model.explain(samples, sample_rate=rate)
    a, bias = explanation.activations, model.variables["params"]["readout"]["nodes"]["bias"]
    readout = model.variables["params"]["readout"]
    on_nodes = a.nodes.ravel() @ np.asarray(readout["nodes"]["kernel"])
    on_edges = a.edges.ravel() @ np.asarray(readout["edges"]["kernel"])
    total = (on_nodes + on_edges + bias) / model.bundle.temperature
    np.testing.assert_allclose(a.scene_logits, total, atol=1e-4)
    without = (on_nodes + bias) / model.bundle.temperature
    assert explanation.scene_without_edges == without.argmax()


def test_labels_of_frames(tmp_path):
    """Resident and streamed alike; the stage's loss is that of the frames."""
    fields = {"data.annotations": "truth", "train.loss": "frames"}
    runs = {}
    for resident in ("always", "never"):
        settings = small(ergl_dynamic, tmp_path, **fields, **{"data.resident": resident})
        stages.train(settings, tmp_path / resident)
        runs[resident] = bundles.load(tmp_path / resident / "bundle").variables["params"]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), *runs.values())
    stage = tmp_path / "always" / "stages" / "events" / "metrics.jsonl"
    loss = json.loads(stage.read_text().splitlines()[0])["event_loss"]
    assert 0.05 < loss < 1.5


def test_a_single_stage_is_refused(tmp_path):
    with pytest.raises(InputError, match="requires config.stages"):
        small(ergl_dynamic, tmp_path, stages=())
