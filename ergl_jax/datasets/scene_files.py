"""Scene files: which events a scene contains, how often, how loud, and how they relate.

data_prep/soundscapes.yaml is one, with comments; soundscapes.py composes clips from it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ergl_jax.errors import InputError
from ergl_jax.files import reading
from ergl_jax.schema import short

HOW = ("over", "in_turn", "freely")


# settings.json next to users' clips contains the names of these classes and fields.
@dataclasses.dataclass(frozen=True)
class Background:
    """What sounds throughout a clip: noise, or looped recordings of an event."""

    noise: float | None  # slope of the noise's spectrum, dB an octave
    event: str | None  # exactly one of the two is given
    level: tuple[float, float]  # RMS, dB of full scale


@dataclasses.dataclass(frozen=True)
class Part:
    """Events that relate in one way."""

    events: tuple[str, ...]
    how: str  # one of HOW
    times: tuple[int, int]  # how often each sounds in a clip
    seconds: tuple[float, float]  # how long it sounds; a shorter recording ends earlier
    level: tuple[float, float]  # RMS while it sounds, dB above the background's
    chance: float  # probability that the part is in a clip; if `freely`, of each event on its own


@dataclasses.dataclass(frozen=True)
class Scene:
    name: str
    background: Background
    parts: tuple[Part, ...]

    def events(self) -> list[str]:
        """Every event that may sound in it."""
        background = [self.background.event] if self.background.event else []
        return background + [event for part in self.parts for event in part.events]


@dataclasses.dataclass(frozen=True)
class SceneFile:
    labels: dict[str, tuple[str, ...]]  # event -> labels of its recordings
    scenes: tuple[Scene, ...]


def read_scenes(path: Path) -> SceneFile:
    """Reads a scene file; InputError in one line that names file, field, value and remedy."""
    with reading(path, form="YAML"):
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    return _scene_file(_Field(f"{path}:", content))


def check_fits(path: Path, scene_file: SceneFile, seconds: float) -> None:
    """InputError unless every part of every scene fits into a clip of `seconds`."""
    for scene in scene_file.scenes:
        for index, part in enumerate(scene.parts):
            count = part.times[1] * (1 if part.how == "freely" else len(part.events))
            if count * part.seconds[1] > seconds * (1 + 1e-9):
                raise InputError(
                    f"{path}: scenes.{scene.name}.parts[{index}]: {count} sounds of up to "
                    f"{part.seconds[1]:g} s don't fit into {seconds:g} s; lower times or seconds"
                )


class _Loader(yaml.SafeLoader):
    """A SafeLoader that refuses repeated keys: YAML's own loader drops the first."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: {key.value!r} is there twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


@dataclasses.dataclass(frozen=True)
class _Field:
    """A value and its full name, such as <path>: scenes.park.parts[0].times."""

    name: str
    value: Any

    def check(self, valid: Any, remedy: str) -> None:
        if not valid:
            raise InputError(f"{self.name} is {short(self.value)}: {remedy}")

    def fields(self, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, _Field]:
        """The fields of a mapping that has the required ones and no unknown ones."""
        found = self.items()
        for name in required:
            self.check(name in found, f"the field {name} is missing")
        known = (*required, *optional)
        for name in found:
            found[name].check(name in known, f"unknown field; the fields are {', '.join(known)}")
        return found

    def items(self) -> dict[str, _Field]:
        """The values of a mapping that isn't empty, by name."""
        valid = isinstance(self.value, dict) and self.value
        self.check(valid, "give fields, `name: value`")
        for name in self.value:
            self.check(isinstance(name, str) and name.strip(), f"put the name {name!r} in quotes")
        prefix = f"{self.name} " if self.name.endswith(":") else f"{self.name}."
        return {name: _Field(prefix + name, value) for name, value in self.value.items()}

    def elements(self, remedy: str) -> list[_Field]:
        """Those of a list that isn't empty."""
        self.check(isinstance(self.value, list) and self.value, remedy)
        return [_Field(f"{self.name}[{i}]", value) for i, value in enumerate(self.value)]

    def number(self, low: float, high: float, kind: type = float) -> Any:
        valid = isinstance(self.value, int if kind is int else (int, float))
        valid = valid and not isinstance(self.value, bool) and low <= self.value <= high
        word = "whole number" if kind is int else "number"
        self.check(valid, f"give a {word} from {low:g} to {high:g}")
        return kind(self.value)

    def range(self, low: float, high: float, kind: type = float) -> tuple:
        """Two numbers in order, given as a list or as one number for both."""
        ends = self.value if isinstance(self.value, list) else [self.value] * 2
        self.check(len(ends) == 2, "give a number, or the smallest and the largest as [1, 2]")
        first, last = (_Field(self.name, end).number(low, high, kind) for end in ends)
        self.check(first <= last, "the smaller number comes first")
        return first, last

    def one_of(self, names: Sequence[str]) -> str:
        self.check(self.value in names, f"choose one of {', '.join(names)}")
        return self.value


def _scene_file(content: _Field) -> SceneFile:
    found = content.fields(("events", "scenes"))
    labels: dict[str, tuple[str, ...]] = {}
    for event, field in found["events"].items().items():
        names = field.value if isinstance(field.value, list) else [field.value]
        valid = names and all(isinstance(name, str) and name for name in names)
        field.check(valid, "give a recording's label, or a list of them")
        for other in labels:
            shared = ", ".join(name for name in names if name in labels[other])
            field.check(not shared, f"{shared} is a label of {other!r} already")
        labels[event] = tuple(names)
    scenes = found["scenes"].items().items()
    return SceneFile(labels, tuple(_scene(name, field, tuple(labels)) for name, field in scenes))


def _scene(name: str, scene: _Field, events: Sequence[str]) -> Scene:
    valid = re.fullmatch(r"[A-Za-z0-9_-]+", name)
    scene.check(valid, f"name scenes by letters, digits, - and _, since files are, not {name!r}")
    fields = scene.fields(("background", "parts"))
    parts = fields["parts"].elements("give a list of what sounds, each with its events")
    background = _background(fields["background"], events)
    found = Scene(name, background, tuple(_part(part, events) for part in parts))
    for event in (names := found.events()):
        fields["parts"].check(names.count(event) == 1, f"name {event!r} only once in a scene")
    return found


def _background(background: _Field, events: Sequence[str]) -> Background:
    fields = background.fields(("level",), ("noise", "event"))
    background.check(("noise" in fields) != ("event" in fields), "give either noise or event")
    return Background(
        noise=fields["noise"].number(-30, 30) if "noise" in fields else None,
        event=fields["event"].one_of(events) if "event" in fields else None,
        level=fields["level"].range(-90, -6),
    )


def _part(part: _Field, events: Sequence[str]) -> Part:
    fields = part.fields(("events", "times", "seconds", "level"), ("how", "chance"))
    named = fields["events"].elements("give a list of events")
    how = fields["how"].one_of(HOW) if "how" in fields else "freely"
    fields["events"].check(how == "freely" or len(named) > 1, f"{how} takes two events or more")
    return Part(
        events=tuple(field.one_of(events) for field in named),
        how=how,
        times=fields["times"].range(1, 1000, int),
        seconds=fields["seconds"].range(0.05, 3600),
        level=fields["level"].range(-30, 60),
        chance=fields["chance"].number(0, 1) if "chance" in fields else 1.0,
    )
