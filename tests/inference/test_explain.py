"""Explanations of recordings by a trained bundle."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import soundfile

from ergl_jax import bundle as bundles
from ergl_jax.errors import InputError
from ergl_jax.inference.classify import Model
from ergl_jax.inference.explain import METHODS, Explainer
from ergl_jax.inference.graph import scene_log_odds
from ergl_jax.models.events import pool_tokens

TEMPERATURE = 1.7  # of no meaning, but not 1


@pytest.fixture(scope="module")
def explainer(tiny):
    bundle = bundles.load(tiny.workdir / "bundle")
    return Explainer(Model(dataclasses.replace(bundle, temperature=TEMPERATURE)))


@pytest.fixture(scope="module")
def recording(explainer):
    """Seven seconds at the bundle's rate, of noise, a tone, silence and noise again."""
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


def test_what_is_read_of_a_whole_graph_is_what_the_model_says(explainer, explained):
    model, opened = explainer.model, explained.opened
    n = len(explained.events)
    output = model.module.apply(model.variables, opened.log_mel[None], train=False)
    wanted = np.asarray(output.scene_logits) / TEMPERATURE
    found = explainer.reader.read(opened.nodes, opened.edges, np.ones((1, n)), np.ones((1, n, n)))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(opened.scene_logits, wanted[0], rtol=1e-4, atol=1e-5)
    assert explained.log_odds == pytest.approx(float(scene_log_odds(wanted[0], explained.scene)))
    assert explained.probability == pytest.approx(softmax(wanted[0]).max(), rel=1e-4)


def test_without_relations_is_the_model_whose_edges_are_zeros(explainer, explained):
    """The paper's ablation without MEL."""
    model, opened = explainer.model, explained.opened
    head = {name: tree["head"] for name, tree in model.variables.items()}
    zeros = np.zeros_like(opened.edges)
    logits, *_ = model.module.make_readout().apply(
        head, opened.nodes[None], zeros[None], train=False
    )
    logits = np.asarray(logits[0]) / TEMPERATURE
    assert explained.scene_without_edges == logits.argmax()
    wanted = float(scene_log_odds(logits, explained.scene))
    assert explained.log_odds_without_edges == pytest.approx(wanted, abs=1e-5)
    assert explained.edge_curves.delete["random"][-1] == pytest.approx(wanted, abs=1e-4)


def test_a_long_recording_is_explained_where_it_speaks_most_for_its_scene(
    explainer, explained, recording
):
    samples, rate = recording
    whole = explained.classification
    assert len(whole.timeline) == 4
    for_it = [window.scenes[whole.scene] for window in whole.timeline]
    assert len(set(for_it)) > 1 and explained.window == int(np.argmax(for_it))
    window = whole.timeline[explained.window]
    start, length = round(window.start * rate), len(explained.waveform)
    part = samples[start : start + length]
    np.testing.assert_array_equal(explained.waveform[: len(part)], part)
    shares = softmax(explained.opened.scene_logits)
    for name, share in zip(explained.scenes, shares, strict=True):
        assert window.scenes[name] == pytest.approx(share, abs=1e-4)
    for name, share in zip(explained.events, explained.opened.event_probabilities, strict=True):
        assert window.events[name] == pytest.approx(share, abs=1e-4)
    assert np.argsort(-shares)[:2].tolist() == [explained.scene, explained.runner_up]


def test_an_event_along_time_is_the_classifier_on_each_token(explainer, explained):
    model, opened = explainer.model, explained.opened
    output = model.module.apply(model.variables, opened.log_mel[None], train=False)
    classifier = model.bundle.variables["params"]["head"]["event_classifier"]
    tokens = np.float64(output.graph.tokens[0])  # (n, T, C)
    logits = np.einsum("ntc,nc->nt", tokens, classifier["kernel"]) + classifier["bias"][:, None]
    times = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(opened.event_times, times, atol=1e-4)
    np.testing.assert_allclose(opened.nodes, pool_tokens(tokens[None])[0], atol=1e-4)
    assert opened.event_times.shape[1] > 1 and opened.event_times.std(axis=1).max() > 0


def test_a_file_is_explained_as_its_samples_are(explainer, explained, recording, tmp_path):
    samples, rate = recording
    soundfile.write(tmp_path / "clip.wav", samples, rate, "FLOAT")
    again = explainer(tmp_path / "clip.wav")
    assert again.window == explained.window
    np.testing.assert_allclose(again.edge_contributions, explained.edge_contributions, atol=1e-5)


def test_both_methods_explain_the_same_scene(explainer, explained, recording):
    samples, rate = recording
    found = explainer(samples, sample_rate=rate, method="integrated")
    assert METHODS == ("gradient", "integrated") and found.method == "integrated"
    opened, n = found.opened, len(found.events)
    empty = explainer.reader.read(opened.nodes, opened.edges, np.zeros((1, n)), np.zeros((1, n, n)))
    total = found.node_contributions.sum() + found.edge_contributions.sum()
    difference = found.log_odds - float(scene_log_odds(empty[0], found.scene))
    assert total == pytest.approx(difference, abs=0.02 * abs(difference) + 1e-3)
    assert not np.allclose(found.node_contributions, explained.node_contributions)


def test_as_json_it_keeps_its_directions(explained):
    found = json.loads(json.dumps(explained.to_dict()))
    events = list(explained.events)
    n = len(events)
    assert len(found["relations"]) == n * (n - 1)
    sizes = [abs(each["contribution"]) for each in found["relations"]]
    assert sizes == sorted(sizes, reverse=True)
    for each in found["relations"]:
        i, j = events.index(each["to"]), events.index(each["from"])
        assert i != j and each["contribution"] == explained.edge_contributions[i, j]
        assert each["mean_edge"] == pytest.approx(explained.opened.edges[i, j].mean())


def test_wrong_use_is_a_line(explainer, recording, tiny):
    samples, rate = recording
    with pytest.raises(InputError, match="method='guess' is not one of: gradient, integrated"):
        explainer(samples, sample_rate=rate, method="guess")
    trained = explainer.model.bundle
    plain = dataclasses.replace(trained, model=dict(trained.model) | {"name": "cnn"})
    clip = np.zeros((1, 201, trained.front_end.n_mels), np.float32)
    variables = plain.build().init(jax.random.key(0), clip, train=False)
    with pytest.raises(InputError, match="'cnn', which has no graph to explain"):
        Explainer(Model(dataclasses.replace(plain, variables=variables)))
