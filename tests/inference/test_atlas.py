"""The numbers of the atlas: confusions, what distinguishes scenes, agreement of runs."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
from made_surveys import EVENTS, hand_made, predicting
from scipy.stats import rankdata

import ergl_jax
from ergl_jax.datasets import builder
from ergl_jax.errors import InputError
from ergl_jax.inference import atlas
from ergl_jax.inference.explain import Explainer


def pages(survey, **changes):
    summary = atlas.summary(dataclasses.replace(survey, **changes))
    return {page["scene"]: page for page in summary["pages"]}


def test_confusion_counts_each_clip():
    survey = hand_made()
    expected = np.zeros((4, 4), int)
    for truth, p in zip(survey.truth, survey.probabilities, strict=True):
        expected[truth, list(p).index(max(p))] += 1
    np.testing.assert_array_equal(survey.confusion, expected)


def test_the_neighbour_is_the_scene_most_confused_with_in_either_direction():
    found = pages(predicting(hand_made(), {0: 1, 1: 0, 4: 0, 3: 2, 6: 2}))
    assert set(found) == {"park", "street", "home"}  # none without clips
    assert (found["park"]["neighbour"], found["park"]["confusions"]) == ("street", 3)
    assert (found["home"]["neighbour"], found["home"]["confusions"]) == ("park", 2)
    assert found["park"]["accuracy"] == pytest.approx(7 / 10) and found["park"]["clips"] == 10


def test_without_confusions_the_neighbour_is_the_next_most_probable_scene():
    survey = predicting(hand_made(), {})
    p = survey.probabilities.copy()
    p[survey.truth == 1, 3] = 0.02
    page = pages(survey, probabilities=p)["street"]
    # There are no clips to compare with.
    assert (page["neighbour"], page["confusions"], page["apart"]) == ("moon", 0, [])


def test_relations_that_differ_are_found_and_measured():
    survey = predicting(hand_made(clips=300), {0: 1})
    edges, park = survey.edge_means.copy(), survey.truth == 0
    edges[park, 2, 1] += 5.0  # Rain -> Bell
    edges[park, 0, 2] -= 3.0  # Bell -> Dog
    edges[park, 1, 1] += 100  # an event's edge to itself is no relation
    found = pages(survey, edge_means=edges)
    first, second = found["park"]["apart"][:2]
    assert (first["from"], first["to"]) == ("Rain", "Bell")
    assert first["d"] == pytest.approx(5, abs=0.6)
    assert first["mean_edge"] == pytest.approx(edges[park, 2, 1].mean())
    assert first["neighbour_mean_edge"] == pytest.approx(edges[survey.truth == 1, 2, 1].mean())
    assert (second["from"], second["to"]) == ("Bell", "Dog")
    assert second["d"] == pytest.approx(-3, abs=0.6)
    np.testing.assert_allclose(found["park"]["edge_means"], edges[park].mean(axis=0))
    without_mel = pages(survey, edge_means=np.zeros_like(edges))
    assert all(page["apart"] == [] for page in without_mel.values())


def test_confusions_are_listed_with_their_most_certain_clips():
    survey = predicting(hand_made(), {0: 1, 3: 1, 6: 1, 9: 1, 1: 2})
    survey.probabilities[9, 1], survey.probabilities[3, 1] = 0.99, 0.98
    first, second = atlas.summary(survey)["confusions"]
    assert (first["scene"], first["predicted"], first["clips"]) == ("park", "street", 4)
    assert [example["clip"] for example in first["examples"]] == ["clip9", "clip3", "clip0"]
    assert (second["scene"], second["predicted"], second["clips"]) == ("street", "home", 1)
    assert atlas.summary(predicting(survey, {}))["confusions"] == []


def test_the_event_that_a_scene_is_named_after():
    events = ("Music", "Chicken, rooster", "Baby cry, infant cry", "Rain on surface", "Rain")
    found = {name: atlas.own_event(name, events) for name in ("rooster", "baby_cry", "rain", "dog")}
    assert found == {"rooster": 1, "baby_cry": 2, "rain": 4, "dog": None}
    survey = predicting(hand_made(), {0: 1, 1: 2})
    named = pages(survey, scenes=("park", "dog", "home", "moon"))
    assert named["park"]["own_event"] is None
    clips = survey.predicted == 1
    strongest = sum(max(row) == row[0] for row in survey.node_contributions[clips])
    expected = {"event": "Dog", "clips": 10, "strongest": strongest}
    assert named["dog"]["own_event"] == expected and 0 < strongest < 10


def test_the_most_certain_clip_of_a_scene_is_a_right_one():
    survey = predicting(hand_made(), {3: 1, **{k: 0 for k in range(2, 30, 3)}})
    survey.probabilities[6, 0], survey.probabilities[2, 0] = 0.98, 0.99
    found = pages(survey)
    assert found["park"]["most_certain"] == {"clip": "clip6", "probability": 0.98}
    assert found["home"]["most_certain"] is None


def test_agreement_is_spearmans_correlation():
    a, b = predicting(hand_made(0), {}), predicting(hand_made(1), {5: 3})
    found = atlas.agreement([a, b])
    expected = []
    for clip in set(range(30)) - {5}:
        ranks = [rankdata(s.edge_contributions[clip].ravel()) for s in (a, b)]
        expected.append(np.corrcoef(*ranks)[0, 1])
    assert found["clips"] == 29 and found["relations"] == pytest.approx(np.mean(expected))


def test_agreement_matches_events_by_name_and_needs_the_same_clips():
    survey = predicting(hand_made(), {})
    order = np.array([2, 0, 1])
    permuted = dataclasses.replace(
        survey,
        events=tuple(EVENTS[k] for k in order),
        node_contributions=survey.node_contributions[:, order],
        edge_contributions=survey.edge_contributions[:, order][:, :, order],
    )
    same = atlas.agreement([survey, permuted, survey])
    assert same == pytest.approx({"events": 1, "relations": 1, "clips": 90})
    assert atlas.agreement([survey]) is None
    others = hand_made(clips=20), dataclasses.replace(survey, events=("Dog", "x", "y"))
    for other in others:
        with pytest.raises(InputError, match="give runs of one dataset"):
            atlas.agreement([survey, other])


def test_a_survey_of_a_run(tiny):
    explainer = Explainer(ergl_jax.load(tiny.workdir / "bundle"))
    dataset = builder.load(next(tiny.data_dir.glob("*/*/*")))
    clips = dataset.split("test").arrays()
    scenes = [dataset.scenes[scene] for scene in clips["scene"]]
    found = atlas.survey(explainer, zip(clips["name"], scenes, clips["log_mel"], strict=True))
    assert found.accuracy == pytest.approx(tiny.results["test"]["accuracy"])
    model = explainer.model
    apply = jax.jit(partial(model.module.apply, train=False))
    output = apply(model.variables, clips["log_mel"])
    np.testing.assert_allclose(found.edge_means, output.graph.edges_in.mean(axis=-1), atol=1e-4)
    assert found.edge_contributions.shape == (10, 4, 4)
