"""Scene files: which events a scene holds, how often, how loud, and how they relate.

data_prep/soundscapes.yaml is one, with comments; soundscapes.py makes clips of it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from ergl_jax.errors import InputError

HOW = ("over", "in_turn", "freely")


@dataclasses.dataclass(frozen=True)
class Background:
    """What sounds throughout a clip: noise, or recordings of an event, looped."""

    noise: float | None  # slope of the noise's spectrum, dB an octave
    event: str | None  # exactly one of the two is given
    level: tuple[float, float]  # RMS, dB of full scale


@dataclasses.dataclass(frozen=True)
class Part:
    """Events that relate in one way."""

    events: tuple[str, ...]
    how: str  # one of HOW
    times: tuple[int, int]  # how often each sounds in a clip
    seconds: tuple[float, float]  # how long it sounds, at most: a shorter recording ends earlier
    level: tuple[float, float]  # RMS while it sounds, dB above the background's
    chance: float  # that the part is in a clip at all; of each event by itself if `freely`


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
    labels: dict[str, tuple[str, ...]]  # event -> what recordings of it are labelled
    scenes: tuple[Scene, ...]


def read_scenes(path: Path) -> SceneFile:
    """Reads a scene file; InputError in one line that names file, field and value."""
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a SafeLoader
    except OSError as error:
        raise InputError(f"{path}: can't read the scene file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the scene file isn't UTF-8 text ({error.reason})") from error
    except Exception as error:  # a wrong tag fails in ways of its own
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    top = _Fields(f"{path}: ", found)
    labels = {
        event: tuple(value if isinstance(value, list) else [value])
        for event, value in top.named("events").items()
    }
    for event, names in labels.items():
        if not names or not all(isinstance(name, str) and name for name in names):
            top.wrong(f"events.{event}", list(names), "give a recording's label, or a list of them")
    owners: dict[str, str] = {}
    for event, names in labels.items():
        for name in names:
            if owners.setdefault(name, event) != event:
                top.wrong(f"events.{event}", name, f"it is a label of {owners[name]!r} already")
    scenes = [_scene(path, name, value, labels) for name, value in top.named("scenes").items()]
    top.no_others()
    return SceneFile(labels, tuple(scenes))


def _scene(path: Path, name: str, value, labels: Mapping) -> Scene:
    fields = _Fields(f"{path}: scenes.{name}", value)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        fields.wrong("", name, "name scenes by letters, digits, - and _: files are called by them")
    inner = _Fields(f"{fields.where}.background", fields.get("background"))
    given = [key for key in ("noise", "event") if key in inner.found]
    if len(given) != 1:
        fields.wrong("background", sorted(inner.found), "give one of noise and event, and a level")
    background = Background(
        noise=inner.number("noise", -30, 30) if given == ["noise"] else None,
        event=inner.event("event", labels) if given == ["event"] else None,
        level=inner.range("level", -90, -6),
    )
    inner.no_others()
    parts = fields.get("parts")
    if not isinstance(parts, list) or not parts:
        fields.wrong("parts", parts, "give a list of what sounds, each with its events")
    scene = Scene(name, background, tuple(_part(fields, i, labels) for i in range(len(parts))))
    fields.no_others()
    events = scene.events()
    if twice := [event for event in events if events.count(event) > 1]:
        fields.wrong("parts", twice[0], "the event stands there twice; name it once in a scene")
    return scene


def _part(scene: _Fields, index: int, labels: Mapping) -> Part:
    fields = _Fields(f"{scene.where}.parts[{index}]", scene.found["parts"][index])
    events = fields.get("events")
    if not isinstance(events, list) or not events:
        fields.wrong("events", events, "give a list of events")
    for event in events:
        fields.known_event("events", event, labels)
    how = fields.get("how", "freely")
    if how not in HOW:
        fields.wrong("how", how, f"choose {', '.join(HOW)}")
    if how != "freely" and len(events) < 2:
        fields.wrong("events", events, f"{how} takes two events or more")
    part = Part(
        events=tuple(events),
        how=how,
        times=fields.range("times", 1, 1000, whole=True),
        seconds=fields.range("seconds", 0.05, 3600),
        level=fields.range("level", -30, 60),
        chance=fields.number("chance", 0, 1, default=1.0),
    )
    fields.no_others()
    return part


class _Loader(yaml.SafeLoader):
    """Safe, and an error where a key stands twice: YAML's own loader drops the first."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: {key.value!r} stands there twice")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


class _Fields:
    """The fields of a mapping, each checked as it is taken."""

    def __init__(self, where: str, found):
        self.where, self.found, self.taken = where, found, set()
        if not isinstance(found, dict):
            self.wrong("", found, "give fields, `name: value`")

    def wrong(self, name: str, value, advice: str):
        text = repr(value)
        text = text if len(text) <= 60 else f"{text[:57]}..."
        raise InputError(f"{self._called(name)} is {text}: {advice}")

    def _called(self, name: str) -> str:
        dot = "." if name and not self.where.endswith(" ") else ""
        return f"{self.where}{dot}{name}" if name or dot else self.where.removesuffix(": ")

    def get(self, name: str, default=None):
        self.taken.add(name)
        if name not in self.found and default is None:
            there = ", ".join(map(str, self.found)) or "none"
            raise InputError(f"{self._called(name)} is missing; the fields there are {there}")
        return self.found.get(name, default)

    def named(self, name: str) -> dict:
        value = self.get(name)
        if not isinstance(value, dict) or not value:
            self.wrong(name, value, "give fields, `name: value`")
        for key in value:
            if not isinstance(key, str) or not key.strip():
                self.wrong(name, key, "a name is text; put it in quotes")
        return value

    def number(self, name: str, least: float, most: float, default=None) -> float:
        return self._number(name, self.get(name, default), least, most, whole=False)

    def range(self, name: str, least: float, most: float, whole: bool = False) -> tuple:
        """One number for both ends, or a list of two."""
        value = self.get(name)
        ends = value if isinstance(value, list) else [value, value]
        if len(ends) != 2:
            self.wrong(name, value, "give a number, or the least and the greatest: [1, 2]")
        low, high = (self._number(name, end, least, most, whole) for end in ends)
        if low > high:
            self.wrong(name, value, "the least stands first")
        return low, high

    def _number(self, name: str, value, least: float, most: float, whole: bool):
        kind = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most:
            word = "whole number" if whole else "number"
            self.wrong(name, value, f"give a {word} from {least:g} to {most:g}")
        return value if whole else float(value)

    def event(self, name: str, labels: Mapping) -> str:
        return self.known_event(name, self.get(name), labels)

    def known_event(self, name: str, event, labels: Mapping) -> str:
        if not isinstance(event, str) or event not in labels:
            self.wrong(name, event, f"no such event; `events` has {', '.join(labels)}")
        return event

    def no_others(self) -> None:
        if others := [name for name in self.found if name not in self.taken]:
            known = ", ".join(sorted(self.taken))
            raise InputError(f"{self._called(str(others[0]))}: no such field; there are {known}")


def check_fits(path: Path, scene_file: SceneFile, seconds: float) -> None:
    """InputError where what a scene holds can't fit into clips of `seconds`."""
    for scene in scene_file.scenes:
        for index, part in enumerate(scene.parts):
            count = part.times[1] * (1 if part.how == "freely" else len(part.events))
            if count * part.seconds[1] > seconds * (1 + 1e-9):
                raise InputError(
                    f"{path}: scenes.{scene.name}.parts[{index}]: {count} sounds of up to "
                    f"{part.seconds[1]:g} s don't fit into {seconds:g} s; lower times or seconds"
                )
