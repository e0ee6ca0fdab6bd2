"""The names of classes against the published list."""

import csv
import os
from pathlib import Path

import pytest

from ergl_jax.labels import AUDIOSET, TUT2018_SCENES

SHARED = Path(os.environ.get("ERGL_SHARED_DATA", "not given"))
LIST = SHARED / "audioset_labels.csv"
KNOWN = {
    0: "Speech",
    1: "Male speech, man speaking",
    72: "Animal",
    137: "Music",
    300: "Vehicle",
    500: "Silence",
    526: "Field recording",
}


def test_audioset_has_527_different_names():
    assert len(AUDIOSET) == len(set(AUDIOSET)) == 527
    assert all(name == name.strip() and "  " not in name and "\n" not in name for name in AUDIOSET)
    assert {index: AUDIOSET[index] for index in KNOWN} == KNOWN


@pytest.mark.skipif(not LIST.exists(), reason="the published list is not here")
def test_audioset_equals_the_published_list():
    with open(LIST, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == list(range(527))
    assert AUDIOSET == tuple(row["display_name"] for row in rows)


def test_tut2018_has_ten_scenes_in_order():
    assert len(set(TUT2018_SCENES)) == 10
    assert list(TUT2018_SCENES) == sorted(TUT2018_SCENES)


@pytest.mark.skipif(not (SHARED / "urban_clips").exists(), reason="the recordings are not here")
def test_tut2018_scenes_are_the_recordings():
    assert {clip.stem for clip in (SHARED / "urban_clips").glob("*.wav")} == set(TUT2018_SCENES)
