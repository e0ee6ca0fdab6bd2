"""The atlas as files: its numbers are the survey's, and its page needs no other."""

import dataclasses
import html.parser
import json
import re

import numpy as np
import pytest
from made_surveys import EVENTS, SCENES, hand_made, told

from ergl_jax.errors import InputError
from ergl_jax.inference import atlas, atlas_page

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
AGREEMENT = {"events": 0.62, "relations": -0.05, "clips": 57}
CONFUSED = {0: 1, 1: 0, 4: 0, 3: 2}  # park and street 3 times, park and home once


class Reader(html.parser.HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self._raw = [], "", False
        self.feed(text)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._raw = False

    def handle_data(self, data):
        if not self._raw:
            self.text += f" {data}"


def page(found, agreement=None, runs=("runs/a",)):
    return Reader(atlas_page.page(found, agreement, runs))


def data(found):
    text = atlas_page.page(found, None, ["a"])
    return json.loads(re.search(r'id="data">(.*?)</script>', text).group(1))


def test_the_json_holds_the_numbers_of_the_survey(tmp_path):
    found = told(hand_made(), CONFUSED)
    path = atlas_page.write(tmp_path / "out", found, AGREEMENT, runs=["runs/a", "runs/b"])
    assert path == tmp_path / "out" / "atlas.html"
    assert {each.name for each in path.parent.iterdir()} == {"atlas.html", "atlas.json"}
    said = json.loads((path.parent / "atlas.json").read_text())
    assert (said["runs"], said["dataset"], said["clips"]) == (["runs/a", "runs/b"], "made up", 30)
    assert (said["scenes"], said["events"]) == (list(SCENES), list(EVENTS))
    assert said["accuracy"] == pytest.approx(26 / 30)
    assert said["confusion"] == found.confusion.tolist()
    assert said["confusions"] == atlas.confusions(found)
    assert said["agreement"] == AGREEMENT
    expected = atlas.scene_pages(found)
    assert [each["scene"] for each in said["pages"]] == ["park", "street", "home"]
    for each, scene in zip(said["pages"], expected, strict=True):
        assert each["neighbour"] == SCENES[scene.neighbour]
        assert (each["clips"], each["accuracy"]) == (scene.clips, scene.accuracy)
        assert each["confusions"] == scene.confusions
        np.testing.assert_array_equal(each["edge_means"], scene.edge_means)
        np.testing.assert_array_equal(each["event_probabilities"], scene.event_probabilities)
        for relation, (i, j, d) in zip(each["apart"], scene.apart, strict=True):
            assert (relation["from"], relation["to"], relation["d"]) == (EVENTS[j], EVENTS[i], d)
            mine, theirs = (found.edge_means[found.truth == k, i, j].mean() for k in _pair(scene))
            assert relation["mean_edge"] == pytest.approx(mine)
            assert relation["neighbour_mean_edge"] == pytest.approx(theirs)


def _pair(scene):
    return scene.scene, scene.neighbour


def test_the_data_of_the_matrix_are_the_mean_relations():
    found = told(hand_made(), CONFUSED)
    drawn = data(found)
    assert drawn["events"] == list(EVENTS)
    assert [each["name"] for each in drawn["scenes"]] == ["park", "street", "home"]
    assert [each["neighbour"] for each in drawn["scenes"]] == [1, 0, 0]
    for k, each in enumerate(drawn["scenes"]):
        mean = found.edge_means[found.truth == k].mean(axis=0)
        np.testing.assert_allclose(each["means"], mean, rtol=1e-4)


def test_the_page_tells_the_main_numbers():
    read = page(told(hand_made(), CONFUSED))
    for part in (
        "Scenes of made up 86.7 %",
        "30 test clips, 4 scenes, 3 events; run a",
        "names 26 of 30 clips right (86.7 %)",
        "naming the same scene always would be right for 33.3 % at most",
        "All clips of 1 scene of 3 are named right.",
        "The hardest scene is park, with 8 of 10 clips named right.",
        "The most frequent confusion is street taken for park: 2 clips.",
        "street taken for park, 2 clips: clip1 (97.0 %), clip4 (97.0 %)",
        "park taken for home, 1 clip: clip3 (97.0 %)",
        "8 of 10 clips named right (80.0 %). Most often confused with street: 3 clips",
    ):
        assert part in read.text
    assert "Do the runs agree?" not in read.text
    cells = [a["style"] for tag, a in read.elements if tag == "td" and "style" in a]
    assert len(cells) == np.count_nonzero(told(hand_made(), CONFUSED).confusion)
    assert cells[0].endswith("0.440)")  # 0.55 of the 8 in 10 that are named right


def test_a_page_without_confusions():
    found = told(hand_made(), {})
    read = page(found)
    assert "It confuses no two scenes." in read.text
    assert "30 of 30 clips right (100.0 %)" in read.text
    assert "Confused with no scene, in either direction" in read.text
    assert "Confusions, the most frequent first" not in read.text and "taken for" not in read.text


def test_many_confusions_are_counted_beyond_those_listed(monkeypatch):
    monkeypatch.setattr(atlas_page, "LISTED_CONFUSIONS", 2)
    read = page(told(hand_made(), CONFUSED))
    assert len([1 for tag, _ in read.elements if tag == "li"]) == 2
    assert "And 1 more, in atlas.json" in read.text


def test_a_neighbour_without_clips_is_named_and_not_compared():
    found = told(hand_made(), {**{k: 3 for k in range(0, 30, 3)}, 1: 2})  # parks on the moon
    read = page(found)
    assert "It takes two clips of either scene to compare them." in read.text
    assert data(found)["scenes"][0]["neighbour"] is None
    assert "event here home" in read.text and "event here moon" not in read.text


def test_without_mel_no_relation_differs():
    found = dataclasses.replace(told(hand_made(), CONFUSED), edge_means=np.zeros((30, 3, 3)))
    read = page(found)
    assert read.text.count("No relation between two events differs.") == 3
    assert "none. No relation" not in page(told(hand_made(), CONFUSED)).text


@pytest.mark.parametrize(
    "where, said", [((2, slice(None)), "received by Bell"), ((slice(None), 2), "sent by Bell")]
)
def test_one_event_behind_all_relations_is_told(where, said):
    found = told(hand_made(), CONFUSED)
    assert "All of these are" not in page(found).text
    edges = np.zeros_like(found.edge_means)
    edges[:, *where] = found.edge_means[:, *where]
    assert f"All of these are {said}:" in page(dataclasses.replace(found, edge_means=edges)).text


def test_several_runs_and_whether_they_agree():
    found = told(hand_made(), {})
    read = page(found, AGREEMENT, ["/home/me/a", "/home/me/b", "/home/me/c"])
    assert "run a, compared with b, c" in read.text and "/home/me" not in read.text
    assert "events 0.62 relations −0.05" in read.text
    assert "57 pairs of runs and clips" in read.text
    assert atlas_page.agreed(AGREEMENT) in read.text


@pytest.mark.parametrize(
    "events, relations, said",
    [
        (0.9, 0.8, "On which events, and which relations, matter for a clip the runs largely"),
        (0.8, 0.5, "the runs largely agree; on which relations matter they agree in part."),
        (0.2, -0.3, "the runs hardly agree; on which relations matter they do not agree."),
    ],
)
def test_agreement_in_words(events, relations, said):
    text = atlas_page.agreed({"events": events, "relations": relations, "clips": 3})
    assert said in text
    assert ("holds for one run" in text) == (relations < 0.7)


def test_runs_that_never_agree_on_a_scene(tmp_path):
    none = {"events": float("nan"), "relations": float("nan"), "clips": 0}
    found = told(hand_made(), {})
    path = atlas_page.write(tmp_path, found, none, runs=["a", "b"])
    assert json.loads((tmp_path / "atlas.json").read_text())["agreement"] == {
        "events": None,
        "relations": None,
        "clips": 0,
    }
    text = path.read_text()
    assert "No two runs give any clip the same scene" in text and "nan" not in text


def test_hostile_names_are_text(tmp_path):
    found = dataclasses.replace(
        told(hand_made(), CONFUSED),
        scenes=(HOSTILE, "<b>street</b>", "{{ 7 * 7 }}", "moon"),
        events=(HOSTILE, "</script><script>alert(3)</script>", "<!-- \udcff\x07"),
        names=tuple(f"<i>{k}</i>\udcff" for k in range(30)),
        dataset="<u>data</u>",
    )
    path = atlas_page.write(tmp_path, found, None, runs=[f"{HOSTILE}\udcff"])
    read = Reader(path.read_text(encoding="utf-8"))
    tags = [tag for tag, _ in read.elements]
    assert tags.count("script") == 2 and not {"img", "b", "i", "u"} & set(tags)
    assert HOSTILE in read.text and "{{ 7 * 7 }}" in read.text and "<i>4</i>" in read.text
    assert not [name for _, a in read.elements for name in a if name.startswith("on")]
    policy = next(a["content"] for _, a in read.elements if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; ") and "http" not in policy


def test_a_file_in_place_of_the_directory_is_a_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file can't be made"):
        atlas_page.write(tmp_path / "file", hand_made(), None, runs=["a"])
