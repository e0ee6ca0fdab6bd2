"""The files of the atlas."""

import base64
import dataclasses
import io
import json
import re

import numpy as np
import pytest
import soundfile
from made_surveys import hand_made, predicting

from ergl_jax.errors import InputError
from ergl_jax.inference import atlas, atlas_page

AGREEMENT = {"events": 0.62, "relations": -0.05, "clips": 57}
SURVEY = predicting(hand_made(), {0: 1, 1: 0, 4: 0, 3: 2})


def page(survey, agreement=None, runs=("runs/a",)):
    """The text of the page."""
    text = atlas_page.render(survey, agreement, runs).split("<body>")[1]
    return " ".join(re.sub("<[^>]*>", " ", text.split("<script")[0]).split())


def test_the_files_have_the_numbers_of_the_survey(tmp_path):
    path = atlas_page.write(tmp_path / "out", SURVEY, AGREEMENT, runs=["runs/a", "runs/b"])
    assert path == tmp_path / "out" / "atlas.html"
    numbers = json.loads((path.parent / "atlas.json").read_text())
    runs = {"runs": ["runs/a", "runs/b"], "agreement": AGREEMENT}
    assert numbers == atlas.summary(SURVEY) | runs
    data = json.loads(re.search(r'id="data">(.*?)</script>', path.read_text()).group(1))
    assert data == atlas.summary(SURVEY)


def test_the_page_shows_the_main_numbers():
    text = page(SURVEY)
    for part in (
        "Scenes of made up 86.7 %",
        "30 test clips, 4 scenes, 3 events; run a",
        "Only one run: whether another explains these clips in the same way has not been tested.",
        "26 of 30 clips are classified correctly (86.7 %)",
        "always answering the most frequent scene would give 33.3 %",
        "The hardest scene is park (80.0 % correct). The most frequent confusion is street taken",
        "street taken for park, 2 clips: clip1 (97.0 %) clip4 (97.0 %)",
        "8 of 10 clips of park are classified correctly (80.0 %). Most often confused with street,",
        "event park street",
    ):
        assert part in text
    assert "Agreement of runs" not in text and "named after an event" not in text


def test_a_page_without_confusions_and_one_with_many(monkeypatch):
    text = page(predicting(hand_made(), {}))
    assert "30 of 30 clips are classified correctly (100.0 %)" in text
    assert "Never confused" in text and "taken for" not in text
    monkeypatch.setattr(atlas_page, "MAX_CONFUSIONS", 2)
    assert "1 more are in atlas.json" in page(SURVEY)


def test_a_neighbour_without_clips_is_not_compared():
    text = page(predicting(hand_made(), {**{k: 3 for k in range(0, 30, 3)}, 1: 2}))
    assert "No relation differs between park and moon, or one of the two scenes has fewer" in text
    assert "event street home" in text and "event park moon" not in text


@pytest.mark.parametrize(
    "where, text", [((2, slice(None)), "received by Bell"), ((slice(None), 2), "sent by Bell")]
)
def test_one_event_in_all_relations_that_differ(where, text):
    assert "All of these are" not in page(SURVEY)
    edges = np.zeros_like(SURVEY.edge_means)
    edges[:, *where] = SURVEY.edge_means[:, *where]
    assert f"All of these are {text}: it distinguishes park from street" in page(
        dataclasses.replace(SURVEY, edge_means=edges)
    )


def test_whether_runs_agree(tmp_path):
    text = page(SURVEY, AGREEMENT, ["/home/me/a", "/home/me/b", "/home/me/c"])
    assert "run a, compared with b, c" in text and "/home/me" not in text
    assert "is 0.62 for events and −0.05 for relations; an explanation holds for one run" in text
    assert text.index("The runs do not agree") < text.index("26 of 30 clips")
    assert "57 pairs of runs and clips" in text
    agreeing = page(SURVEY, {"events": 0.9, "relations": 0.8, "clips": 3})
    assert "The runs agree on" in agreeing and "holds for one run" not in agreeing
    none = {"events": float("nan"), "relations": float("nan"), "clips": 0}
    path = atlas_page.write(tmp_path, SURVEY, none, runs=["a", "b"])
    assert "No two runs give any clip the same scene" in path.read_text()
    numbers = json.loads((tmp_path / "atlas.json").read_text())["agreement"]
    assert numbers == {"events": None, "relations": None, "clips": 0}


def test_examples_can_be_played_where_their_recordings_can_be_read():
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8 * 16000) / 16000)

    def listen(clip):
        if clip == "clip1":
            raise InputError("no such file")
        return tone, 16000

    text = atlas_page.render(SURVEY, None, ["a"], listen)
    found = re.findall(r'<audio [^>]*src="([^"]*)" aria-label="([^"]*)"', text)
    players = {clip: uri for uri, clip in found}
    assert "clip4" in players and "clip1" not in players
    assert "clip1 (97.0 %) <span" in " ".join(text.split()) and "not playable" in text
    kind, _, content = players["clip4"].partition(";base64,")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(content)))
    assert kind == "data:audio/mpeg" and rate == 16000 and len(samples) < 6 * rate
    assert len(content) < len(samples) / 2  # a tenth of 16 bits
    assert "not playable" not in page(SURVEY)


def test_an_event_named_as_a_scene_is_counted():
    named = dataclasses.replace(SURVEY, scenes=("rain", "street", "home", "moon"))
    own = atlas.summary(named)["pages"][0]["own_event"]
    text = page(named)
    assert f"In {own['strongest']} of 10 clips that are classified as a scene named after" in text
    assert "by chance: 1 in 3" in text
    assert f"In {own['strongest']} of 10 clips classified as rain, Rain contributes most." in text
