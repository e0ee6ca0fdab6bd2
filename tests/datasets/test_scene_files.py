"""Scene files: the one that comes with the project, and one line for every mistake in another."""

import dataclasses
import textwrap
from pathlib import Path

import pytest

from ergl_jax.datasets.scene_files import Background, Part, check_fits, read_scenes
from ergl_jax.errors import InputError
from ergl_jax.labels import AUDIOSET

SHIPPED = Path(__file__).resolve().parents[2] / "data_prep" / "soundscapes.yaml"
GOOD = """
events:
  Dog: [dog, dog_bark]
  Rain: rain
scenes:
  park:
    background: {noise: -3, level: [-50, -44]}
    parts:
      - {events: [Dog, Rain], how: over, times: [1, 2], seconds: 1, level: [3, 9], chance: 0.5}
  shore:
    background: {event: Rain, level: -40}
    parts:
      - {events: [Dog], times: 1, seconds: [0.5, 1], level: 6}
"""


def read(tmp_path, text):
    path = tmp_path / "scenes.yaml"
    path.write_text(text, encoding="utf-8")
    return read_scenes(path)


def test_what_a_file_says(tmp_path):
    found = read(tmp_path, GOOD)
    assert found.labels == {"Dog": ("dog", "dog_bark"), "Rain": ("rain",)}
    park, shore = found.scenes
    assert (park.name, shore.name) == ("park", "shore")
    assert park.background == Background(-3.0, None, (-50.0, -44.0))
    assert shore.background == Background(None, "Rain", (-40.0, -40.0))
    assert park.parts == (Part(("Dog", "Rain"), "over", (1, 2), (1.0, 1.0), (3.0, 9.0), 0.5),)
    assert shore.parts == (Part(("Dog",), "freely", (1, 1), (0.5, 1.0), (6.0, 6.0), 1.0),)
    assert (park.events(), shore.events()) == (["Dog", "Rain"], ["Rain", "Dog"])


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("noise: -3", "tilt: -3", "scenes.park.background is ['level', 'tilt']: give one of"),
        ("noise: -3", "noise: pink", "scenes.park.background.noise is 'pink': give a number"),
        ("noise: -3", "noise: .nan", "scenes.park.background.noise is nan"),
        ("noise: -3", "noise: -3, event: Rain", "give one of noise and event"),
        ("event: Rain", "event: Snow", "shore.background.event is 'Snow': no such event; `events`"),
        ("level: -40}", "level: 3}", "scenes.shore.background.level is 3: give a number from -90"),
        ("[-50, -44]", "[-44, -50]", "level is [-44, -50]: the least stands first"),
        ("[-50, -44]", "[-44]", "level is [-44]: give a number, or the least and the greatest"),
        (", level: -40", "", "scenes.shore.background.level is missing"),
        ("[Dog, Rain]", "[Dog, Cat]", "scenes.park.parts[0].events is 'Cat': no such event"),
        ("[Dog, Rain]", "[Dog, Dog]", "scenes.park.parts is 'Dog': the event stands there twice"),
        ("[Dog, Rain]", "[Dog]", "over takes two events or more"),
        ("[Dog, Rain]", "Dog", "scenes.park.parts[0].events is 'Dog': give a list"),
        ("how: over", "how: under", "parts[0].how is 'under': choose over, in_turn, freely"),
        ("times: [1, 2]", "times: -1", "parts[0].times is -1: give a whole number from 1"),
        ("times: [1, 2]", "times: 1.5", "parts[0].times is 1.5: give a whole number"),
        ("times: [1, 2]", "times: true", "parts[0].times is True: give a whole number"),
        ("seconds: 1,", "seconds: 0,", "parts[0].seconds is 0: give a number from 0.05"),
        ("chance: 0.5", "chance: 2", "parts[0].chance is 2: give a number from 0 to 1"),
        ("chance: 0.5", "chances: 1", "parts[0].chances: no such field; there are chance, events"),
        ("events:\n", "sounds:\n", "scenes.yaml: events is missing; the fields there are sounds"),
        ("Rain: rain", "Rain: [rain, dog]", "events.Rain is 'dog': it is a label of 'Dog' already"),
        ("Rain: rain", "Rain: []", "events.Rain is []: give a recording's label"),
        ("Rain: rain", "no: rain", "events is False: a name is text; put it in quotes"),
        ("  park:", "  a/b:", "scenes.a/b is 'a/b': name scenes by letters"),
        ("  shore:", "  park:", "not YAML: line 10: 'park' stands there twice"),
        ("events: [Dog], ", "", "scenes.shore.parts[0].events is missing"),
        ("scenes:", "scenes: {}\nmore:", "scenes is {}: give fields"),
        ("Dog: [dog, dog_bark]", "Dog: [dog", "not YAML: "),
        ("Rain: rain", "Rain: !!python/name:os.system", "not YAML: could not determine"),
        ("Rain: rain", "Rain: !!timestamp rain", "not YAML: "),
        ("events:\n", "more: 1\nevents:\n", "scenes.yaml: more: no such field"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, old, new, said):
    assert old in GOOD
    with pytest.raises(InputError) as caught:
        read(tmp_path, GOOD.replace(old, new, 1))
    text = str(caught.value)
    assert said in text and "\n" not in text and text.startswith(str(tmp_path / "scenes.yaml"))


@pytest.mark.parametrize("text", ["", "[]", "text", "scenes: [1]\nevents: {A: a}", "[" * 1500])
def test_what_is_no_scene_file(tmp_path, text):
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="nowhere.yaml: can't read"):
        read_scenes(tmp_path / "nowhere.yaml")
    (tmp_path / "latin.yaml").write_bytes("é".encode("latin-1"))
    with pytest.raises(InputError, match="latin.yaml: the scene file isn't UTF-8"):
        read_scenes(tmp_path / "latin.yaml")


def test_what_does_not_fit_into_a_clip(tmp_path):
    found = read(tmp_path, textwrap.dedent(GOOD))
    check_fits(tmp_path, found, 4.0)  # two times two events of a second
    with pytest.raises(InputError, match=r"park.parts\[0\]: 4 sounds of up to 1 s don't fit"):
        check_fits(tmp_path, found, 3.9)


def test_the_scenes_that_come_with_the_project():
    found = read_scenes(SHIPPED)
    check_fits(SHIPPED, found, 10.0)
    assert len(found.scenes) == 8 and len(found.labels) == 10
    assert sorted(found.labels, key=AUDIOSET.index) == list(found.labels)
    scenes = {scene.name: scene for scene in found.scenes}
    assert {event for scene in found.scenes for event in scene.events()} == set(found.labels)
    for over, in_turn in (("farm_alarm", "farm_answers"), ("nursery_restless", "nursery_settling")):
        first, second = scenes[over], scenes[in_turn]
        assert (first.parts[0].how, second.parts[0].how) == ("over", "in_turn")
        alike = dataclasses.replace(second.parts[0], how="over")
        assert (alike, *second.parts[1:]) == first.parts
        assert first.background == second.background
    for one, other in (("waiting_room", "allergy_ward"), ("beach", "air_rescue")):
        assert set(scenes[one].events()) == set(scenes[other].events())


def test_the_shipped_scenes_know_the_labels_of_both_corpora(load_script):
    classes = load_script("data_prep/esc10_manifest.py").CLASSES
    labels = {name: event for event, names in read_scenes(SHIPPED).labels.items() for name in names}
    assert labels == classes
