"""Scene files: the one that comes with the project, and one line for every mistake in another."""

import dataclasses
from pathlib import Path

import pytest

from ergl_jax.datasets.scene_files import Background, Part, check_fits, read_scenes
from ergl_jax.errors import InputError

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


def test_the_content_and_what_does_not_fit_into_a_clip(tmp_path):
    found = read(tmp_path, GOOD)
    assert found.labels == {"Dog": ("dog", "dog_bark"), "Rain": ("rain",)}
    park, shore = found.scenes
    assert (park.name, shore.name) == ("park", "shore")
    assert park.background == Background(-3.0, None, (-50.0, -44.0))
    assert shore.background == Background(None, "Rain", (-40.0, -40.0))
    assert park.parts == (Part(("Dog", "Rain"), "over", (1, 2), (1.0, 1.0), (3.0, 9.0), 0.5),)
    assert shore.parts == (Part(("Dog",), "freely", (1, 1), (0.5, 1.0), (6.0, 6.0), 1.0),)
    assert (park.events(), shore.events()) == (["Dog", "Rain"], ["Rain", "Dog"])
    check_fits(tmp_path, found, 4.0)  # two times two events of a second
    with pytest.raises(InputError, match=r"park.parts\[0\]: 4 sounds of up to 1 s don't fit"):
        check_fits(tmp_path, found, 3.9)


@pytest.mark.parametrize(
    "old, new, reason",
    [
        ("noise: -3", "tilt: -3", "scenes.park.background.tilt is -3: unknown field"),
        ("noise: -3", "noise: pink", "scenes.park.background.noise is 'pink': give a number"),
        ("noise: -3", "noise: .nan", "scenes.park.background.noise is nan"),
        ("noise: -3", "noise: -3, event: Rain", "give either noise or event"),
        ("event: Rain", "event: Snow", "shore.background.event is 'Snow': choose one of Dog, Rain"),
        ("[-50, -44]", "[-44, -50]", "level is [-44, -50]: the smaller number comes first"),
        ("[-50, -44]", "[-44]", "level is [-44]: give a number, or the smallest and the largest"),
        (", level: -40", "", "the field level is missing"),
        ("[Dog, Rain]", "[Dog, Dog]", "name 'Dog' only once"),
        ("[Dog, Rain]", "[Dog]", "over takes two events or more"),
        ("[Dog, Rain]", "Dog", "scenes.park.parts[0].events is 'Dog': give a list"),
        ("how: over", "how: under", "parts[0].how is 'under': choose one of over, in_turn, freely"),
        ("times: [1, 2]", "times: 1.5", "parts[0].times is 1.5: give a whole number from 1"),
        ("chance: 0.5", "chance: true", "parts[0].chance is True: give a number from 0 to 1"),
        ("Rain: rain", "Rain: [rain, dog]", "events.Rain is ['rain', 'dog']: dog is a label of 'D"),
        ("Rain: rain", "Rain: []", "events.Rain is []: give a recording's label"),
        ("Rain: rain", "no: rain", "put the name False in quotes"),
        ("  park:", "  a/b:", "name scenes by letters"),
        ("  shore:", "  park:", "not YAML: line 10: 'park' is there twice"),
        ("  Dog: [dog, dog_bark]\n  Rain: rain", "  {}", "events is {}: give fields"),
        ("Dog: [dog, dog_bark]", "Dog: [dog", "not YAML: "),
        ("Rain: rain", "Rain: !!python/name:os.system", "not YAML: could not determine"),
        ("Rain: rain", f"Rain: {'[' * 1500}", "not YAML"),
        (GOOD, "", "is None: give fields"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, old, new, reason):
    with pytest.raises(InputError) as caught:
        read(tmp_path, GOOD.replace(old, new, 1))
    text = str(caught.value)
    assert reason in text and "\n" not in text and text.startswith(str(tmp_path / "scenes.yaml"))


def test_the_scenes_that_come_with_the_project(load_script):
    found = read_scenes(SHIPPED)
    check_fits(SHIPPED, found, 10.0)
    assert len(found.scenes) == 8
    labels = {name: event for event, names in found.labels.items() for name in names}
    assert labels == load_script("data_prep/esc10_manifest.py").CLASSES  # of both corpora
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
