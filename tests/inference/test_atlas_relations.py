"""The atlas of the dynamic event graph: relations in words, and what sets scenes apart."""

import dataclasses
import re

import numpy as np
import pytest
from made_surveys import of_lags, predicting

from ergl_jax.inference import atlas, atlas_page
from ergl_jax.models.dynamic import LAGS

SURVEY = predicting(of_lags(), {0: 1, 1: 0})


def test_the_pair_that_counts_is_compared_with_the_neighbour():
    (found,) = atlas.compare(SURVEY, 0, 1)
    assert found.here.events == (0, 2)
    park, street = (SURVEY.edges[SURVEY.truth == k].mean(axis=0) for k in (0, 1))
    np.testing.assert_allclose(found.here.correlations[len(LAGS) - 1 :], park[0, 2])
    np.testing.assert_allclose(found.there.correlations[: len(LAGS)][::-1], street[2, 0])
    assert found.here.lag == pytest.approx(1, abs=0.1) and found.there.lag < -0.9
    clips = SURVEY.predicted == 0
    assert found.here.contribution == pytest.approx(SURVEY.edge_contributions[clips, 0, 2].mean())
    (other,) = atlas.compare(SURVEY, 1, 0)
    assert other.d == pytest.approx(-found.d) and abs(found.d) > 10


def test_a_pair_without_a_clear_relation_in_either_scene_is_not_listed():
    assert atlas.compare(SURVEY, 0, 2)  # home has none, but park has
    assert atlas.compare(SURVEY, 2, 0)
    quiet = dataclasses.replace(SURVEY, edges=SURVEY.edges / 8)
    assert atlas.compare(quiet, 0, 1) == []
    text = atlas_page.render(quiet, None, ["a"])
    assert "No pair of events that the model uses is clearly related in park or in street." in text


def test_a_neighbour_without_clips():
    (found,) = atlas.compare(SURVEY, 0, 3)
    assert found.there is None and found.d == 0


def test_the_page_says_it_in_words():
    text = atlas_page.render(SURVEY, None, ["a"]).split("<body>")[1].split("<script")[0]
    assert text.count("<svg") == 2  # home has no clear relation, nor its neighbour
    text = " ".join(re.sub("<[^>]*>", " ", text).split())
    (found,) = atlas.compare(SURVEY, 0, 1)
    for later, earlier, each in (("Dog", "Bell", found.here), ("Bell", "Dog", found.there)):
        lag = f"about 1.0 s (+{each.correlation:.2f})"
        assert f"“{later}” follows “{earlier}” by {lag}" in text
    assert "mean edge" not in text.lower() and "Dynamic event graph trained on" in text
    page = atlas.summary(SURVEY)["pages"][0]
    mean = SURVEY.presence[SURVEY.truth == 0].mean(axis=0)
    assert page["event_presence"] == mean.tolist() and "Events by mean presence" in text
    assert "edge_means" not in page and page["edge_correlations"][0][2] == pytest.approx(
        0.5, abs=0.05
    )
    assert page["pairs"][0]["events"] == ["Dog", "Bell"]


def test_no_pair_counts():
    none = dataclasses.replace(SURVEY, edge_contributions=np.zeros_like(SURVEY.edge_contributions))
    assert atlas.compare(none, 0, 1) == []
    assert "No relation of events counts in this model." in atlas_page.render(none, None, ["a"])
