"""What a split says of each scene, against hand-made surveys."""

import dataclasses

import numpy as np
import pytest
from made_surveys import EVENTS, hand_made, told
from scipy.stats import rankdata

import ergl_jax
from ergl_jax.datasets import builder
from ergl_jax.errors import InputError
from ergl_jax.inference import atlas
from ergl_jax.inference.explain import Explainer


def test_confusion_counts_each_clip():
    found = hand_made()
    expected = np.zeros((4, 4), int)
    for truth, probabilities in zip(found.truth, found.probabilities, strict=True):
        expected[truth, list(probabilities).index(max(probabilities))] += 1
    np.testing.assert_array_equal(found.confusion, expected)


def test_the_neighbour_is_the_scene_most_confused_with_either_way():
    found = told(hand_made(), {0: 1, 1: 0, 4: 0, 3: 2, 6: 2})  # park-street 3 times, park-home 2
    pages = {page.scene: page for page in atlas.scene_pages(found)}
    assert set(pages) == {0, 1, 2}  # none for a scene without clips
    assert (pages[0].neighbour, pages[0].confusions) == (1, 3)
    assert (pages[2].neighbour, pages[2].confusions) == (0, 2)
    assert pages[0].accuracy == pytest.approx(7 / 10) and pages[0].clips == 10


def test_without_confusions_it_is_the_most_probable_other():
    found = told(hand_made(), {})
    p = found.probabilities.copy()
    p[found.truth == 1, 3] = 0.02
    page = atlas.scene_pages(dataclasses.replace(found, probabilities=p))[1]
    assert (page.neighbour, page.confusions, page.apart) == (3, 0, ())  # no clips to compare with


def test_what_sets_a_scene_apart_is_found_and_measured():
    found = told(hand_made(clips=300), {0: 1})
    edges = found.edge_means.copy()
    edges[found.truth == 0, 2, 1] += 5.0  # Rain -> Bell is stronger in parks
    edges[found.truth == 0, 0, 2] -= 3.0
    edges[:, 1, 1] += 100 * (found.truth == 0)  # an event's own edge is no relation
    page = atlas.scene_pages(dataclasses.replace(found, edge_means=edges))[0]
    assert [(i, j) for i, j, _ in page.apart[:2]] == [(2, 1), (0, 2)]
    assert page.apart[0][2] == pytest.approx(5, abs=0.6)
    assert page.apart[1][2] == pytest.approx(-3, abs=0.6)
    np.testing.assert_allclose(page.edge_means, edges[found.truth == 0].mean(axis=0))


def test_without_mel_nothing_sets_apart():
    found = dataclasses.replace(hand_made(), edge_means=np.zeros((30, 3, 3)))
    assert all(page.apart == () for page in atlas.scene_pages(found))


def test_confusions_are_listed_with_their_most_certain_clips():
    found = told(hand_made(), {0: 1, 3: 1, 6: 1, 9: 1, 1: 2})
    p = found.probabilities.copy()
    p[9, 1], p[3, 1] = 0.99, 0.98
    first, second = atlas.confusions(dataclasses.replace(found, probabilities=p))
    assert (first["scene"], first["predicted"], first["clips"]) == ("park", "street", 4)
    assert [example["clip"] for example in first["examples"]] == ["clip9", "clip3", "clip0"]
    assert (second["scene"], second["predicted"], second["clips"]) == ("street", "home", 1)
    assert atlas.confusions(told(found, {})) == []


def test_agreement_is_spearmans():
    a, b = told(hand_made(0), {}), told(hand_made(1), {5: 3})
    found = atlas.agreement([a, b])
    assert found["clips"] == 29
    expected = []
    for clip in range(30):
        if clip != 5:
            ranks = [rankdata(s.edge_contributions[clip].ravel()) for s in (a, b)]
            expected.append(np.corrcoef(*ranks)[0, 1])
    assert found["relations"] == pytest.approx(np.mean(expected))


def test_agreement_matches_events_by_name_and_is_one_with_itself():
    found = told(hand_made(), {})
    order = np.array([2, 0, 1])
    turned = dataclasses.replace(
        found,
        events=tuple(EVENTS[k] for k in order),
        node_contributions=found.node_contributions[:, order],
        edge_contributions=found.edge_contributions[:, order][:, :, order],
    )
    same = atlas.agreement([found, turned, found])
    assert same["clips"] == 90
    assert same["events"] == pytest.approx(1) and same["relations"] == pytest.approx(1)
    assert atlas.agreement([found]) is None


def test_what_cannot_be_compared_is_refused():
    found = hand_made()
    with pytest.raises(InputError, match="different clips"):
        atlas.agreement([found, hand_made(clips=20)])
    with pytest.raises(InputError, match="fewer than two events"):
        atlas.agreement([found, dataclasses.replace(found, events=("Dog", "x", "y"))])


def test_a_survey_is_what_the_model_says(tiny):
    explainer = Explainer(ergl_jax.load(tiny.workdir / "bundle"))
    dataset = builder.load(next(tiny.data_dir.glob("*/*/*")))
    clips = dataset.split("test").arrays()
    names = [dataset.scenes[scene] for scene in clips["scene"]]
    found = atlas.survey(explainer, zip(clips["name"], names, clips["log_mel"], strict=True))
    accuracy = (found.predicted == found.truth).mean()
    assert accuracy == pytest.approx(tiny.results["test"]["accuracy"])
    bundle = explainer.model.bundle
    output = bundle.build().apply(bundle.variables, clips["log_mel"], train=False)
    np.testing.assert_allclose(found.edge_means, output.graph.edges_in.mean(axis=-1), atol=1e-4)
    assert found.edge_contributions.shape == (10, 4, 4)
    with pytest.raises(InputError, match="scene 'moon' of clip 'x'"):
        atlas.survey(explainer, [("x", "moon", clips["log_mel"][0])])
    with pytest.raises(InputError, match="no clips"):
        atlas.survey(explainer, [])
