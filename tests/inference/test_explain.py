"""Explanations of recordings by a trained bundle."""

import dataclasses
import json
import types
from functools import partial

import jax
import numpy as np
import pytest
import soundfile

from ergl_jax import bundle as bundles
from ergl_jax.errors import InputError
from ergl_jax.inference.classify import Model
from ergl_jax.inference.contributions import scene_log_odds
from ergl_jax.inference.explain import Explainer
from ergl_jax.models.events import pool_tokens

TEMPERATURE = 1.7  # any but 1


@pytest.fixture(scope="module")
def explainer(tiny):
    bundle = bundles.load(tiny.workdir / "bundle")
    return Explainer(Model(dataclasses.replace(bundle, temperature=TEMPERATURE)))


@pytest.fixture(scope="module")
def recording(explainer):
    """Seven seconds: noise, a tone, silence and noise again."""
    rate = explainer.model.bundle.front_end.sample_rate
    rng = np.random.default_rng(0)
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)
    parts = [rng.normal(0, 0.1, 2 * rate), tone, np.zeros(rate), rng.normal(0, 0.3, 2 * rate)]
    return np.concatenate(parts).astype(np.float32), rate


@pytest.fixture(scope="module")
def explained(explainer, recording):
    samples, rate = recording
    return explainer(samples, sample_rate=rate)


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum()


def test_the_reader_of_a_whole_graph_gives_the_logits_of_the_model(explainer, explained):
    model, a = explainer.model, explained.activations
    n = len(explained.events)
    output = jax.jit(partial(model.module.apply, train=False))(model.variables, a.log_mel[None])
    expected = np.asarray(output.scene_logits) / TEMPERATURE
    logits = explainer.reader.read(a.nodes, a.edges, np.ones((1, n)), np.ones((1, n, n)))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(a.scene_logits, expected[0], rtol=1e-4, atol=1e-5)
    assert explained.log_odds == pytest.approx(float(scene_log_odds(expected[0], explained.scene)))
    assert explained.probability == pytest.approx(softmax(expected[0]).max(), rel=1e-4)


def test_without_relations_it_is_the_model_with_zero_edges(explainer, explained):
    """The paper's ablation without MEL."""
    model, a = explainer.model, explained.activations
    head = {name: tree["head"] for name, tree in model.variables.items()}
    readout, zeros = model.module.make_readout(), np.zeros_like(a.edges)
    logits, *_ = readout.apply(head, a.nodes[None], zeros[None], train=False)
    logits = np.asarray(logits[0]) / TEMPERATURE
    assert explained.scene_without_edges == logits.argmax()
    expected = float(scene_log_odds(logits, explained.scene))
    assert explained.log_odds_without_edges == pytest.approx(expected, abs=1e-5)
    assert explained.edge_curves.delete["random"][-1] == pytest.approx(expected, abs=1e-4)


def test_the_window_in_which_the_scene_is_most_probable_is_explained(
    explainer, explained, recording
):
    samples, rate = recording
    whole = explained.classification
    probabilities = [window.scenes[whole.scene] for window in whole.timeline]
    assert len(set(probabilities)) > 1 and explained.window == int(np.argmax(probabilities))
    window = whole.timeline[explained.window]
    part = samples[round(window.start * rate) :][: len(explained.waveform)]
    np.testing.assert_array_equal(explained.waveform[: len(part)], part)
    p = softmax(explained.activations.scene_logits)
    assert window.scenes == pytest.approx(dict(zip(explained.scenes, p, strict=True)), abs=1e-4)
    events = dict(zip(explained.events, explained.activations.event_probabilities, strict=True))
    assert window.events == pytest.approx(events, abs=1e-4)
    assert np.argsort(-p)[:2].tolist() == [explained.scene, explained.runner_up]


def test_an_event_along_time_is_the_classifier_on_each_token(explainer, explained):
    model, a = explainer.model, explained.activations
    output = jax.jit(partial(model.module.apply, train=False))(model.variables, a.log_mel[None])
    classifier = model.bundle.variables["params"]["head"]["event_classifier"]
    tokens = np.float64(output.graph.tokens[0])  # (n, T, C)
    logits = np.einsum("ntc,nc->nt", tokens, classifier["kernel"]) + classifier["bias"][:, None]
    np.testing.assert_allclose(a.event_times, 1 / (1 + np.exp(-logits)), atol=1e-4)
    np.testing.assert_allclose(a.nodes, pool_tokens(tokens[None])[0], atol=1e-4)
    assert a.event_times.shape[1] > 1 and a.event_times.std(axis=1).max() > 0


def test_integrated_gradients_of_a_file_add_up(explainer, explained, recording, tmp_path):
    samples, rate = recording
    soundfile.write(tmp_path / "clip.wav", samples, rate, "FLOAT")
    e = explainer(tmp_path / "clip.wav", method="integrated")
    assert e.window == explained.window and e.method == "integrated"
    a, n = e.activations, len(e.events)
    empty = explainer.reader.read(a.nodes, a.edges, np.zeros((1, n)), np.zeros((1, n, n)))
    total = e.node_contributions.sum() + e.edge_contributions.sum()
    difference = e.log_odds - float(scene_log_odds(empty[0], e.scene))
    assert total == pytest.approx(difference, abs=0.02 * abs(difference) + 1e-3)
    assert not np.allclose(e.node_contributions, explained.node_contributions)


def test_json_has_relations_from_sender_to_receiver(explained):
    relations = json.loads(json.dumps(explained.to_dict()))["relations"]
    events, n = list(explained.events), len(explained.events)
    sizes = [abs(each["contribution"]) for each in relations]
    count = np.count_nonzero(explained.edge_contributions * (1 - np.eye(n)))
    assert len(sizes) == count and sizes == sorted(sizes, reverse=True)
    for each in relations:
        i, j = events.index(each["to"]), events.index(each["from"])
        assert i != j and each["contribution"] == explained.edge_contributions[i, j]
        assert each["mean_edge"] == pytest.approx(explained.activations.edges[i, j].mean())


def test_a_model_without_a_graph_and_an_unknown_method_are_refused(explainer):
    with pytest.raises(InputError, match="explanations need an ERGL"):
        Explainer(types.SimpleNamespace(bundle=explainer.model.bundle, module=None))
    with pytest.raises(ValueError, match="method='guess' is not one of: gradient, integrated"):
        explainer(np.zeros(16000), sample_rate=16000, method="guess")
