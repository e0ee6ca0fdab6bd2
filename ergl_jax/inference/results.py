"""What a model predicts for a recording."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ergl_jax.errors import escaped
from ergl_jax.inference.activity import Activity

TOP, TOP_OF_WINDOW = 10, 5  # events in the text of Tags


@dataclasses.dataclass(frozen=True)
class Window:
    """The prediction for one stretch of a recording.

    Attributes:
      start: in seconds.
      stop: in seconds; the recording's end where that comes first.
      scenes: probability of each scene, the most probable first; calibrated if the bundle's
        temperature was fitted.
      events: probability of each event, the most probable first.
      silent: whether it is silence, which a recording's mean leaves out.
    """

    start: float
    stop: float
    scenes: Mapping[str, float]
    events: Mapping[str, float]
    silent: bool = dataclasses.field(default=False, kw_only=True)

    @property
    def scene(self) -> str:
        """The most probable scene."""
        return next(iter(self.scenes))

    @property
    def probability(self) -> float:
        """Of the most probable scene."""
        return self.scenes[self.scene]


@dataclasses.dataclass(frozen=True)
class Classification(Window):
    """The prediction for a whole recording: the mean over its windows.

    Attributes:
      name: its path, or "" for samples.
      timeline: its windows, in order.
      notes: what is unusual about the recording.
      distance: from the clips that the model was trained on, the mean over windows; None if the
        bundle has no detector (`Bundle.known`).
      max_distance: beyond it, the recording is unlike the sounds of the training classes.
    """

    name: str
    timeline: tuple[Window, ...]
    notes: tuple[str, ...] = ()
    distance: float | None = None
    max_distance: float | None = None

    @property
    def known(self) -> bool | None:
        """Whether the recording is like those of training; if not, `scene` is a mere guess.

        None if the bundle has no detector.
        """
        if self.distance is None or self.max_distance is None:
            return None
        return self.distance <= self.max_distance

    @property
    def abstention(self) -> str:
        """Why `scene` is a mere guess, or ""."""
        if self.known is not False:
            return ""
        return (
            f"None of the model's {len(self.scenes)} classes: unlike the training clips (distance "
            f"{self.distance:.2f}, limit {self.max_distance:.2f}); the best guess"
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON; "scene" is None for an unknown sound. "max_distance" is None without limit."""
        fields = dataclasses.asdict(self)
        if self.max_distance == math.inf:
            fields["max_distance"] = None
        found = {"file": fields.pop("name"), "scene": None if self.known is False else self.scene}
        return found | {"probability": self.probability, "known": self.known} | fields

    def __str__(self) -> str:
        lines = [_heading(self.name, self.stop)]
        if self.abstention:
            lines.append(f"  {self.abstention}:")
        lines += [f"  {100 * p:5.1f} %  {scene}" for scene, p in list(self.scenes.items())[:3]]
        if self.events:
            events = [f"{event} {p:.2f}" for event, p in list(self.events.items())[:5]]
            lines += [f"  events: {'; '.join(events)}"]
        if len(self.timeline) > 1:
            lines += [
                f"  {window.start:7.1f} to {window.stop:.1f} s  {window.scene} "
                f"({100 * window.probability:.0f} %)"
                for window in self.timeline
            ]
        lines += [f"  note: {note}" for note in self.notes]
        # Names of files and scenes may contain line breaks and a terminal's control characters.
        return "\n".join(map(escaped, lines))


@dataclasses.dataclass(frozen=True)
class TaggedWindow:
    """The events of one stretch of a recording.

    Attributes:
      start: in seconds.
      stop: in seconds; the recording's end where that comes first.
      events: probability of each event, the most probable first.
      silent: whether it is silence, which a recording's mean leaves out.
    """

    start: float
    stop: float
    events: Mapping[str, float]
    silent: bool = dataclasses.field(default=False, kw_only=True)


@dataclasses.dataclass(frozen=True)
class Tags(TaggedWindow):
    """The events of a whole recording: `events` is the mean over its windows.

    Attributes:
      name: its path, or "" for samples.
      maxima: the highest probability of each event in any window, the highest first; silent windows
        are left out of it too.
      timeline: its windows, in order.
      activity: its events over time.
      notes: warnings about the recording, a sentence each.
    """

    name: str
    maxima: Mapping[str, float]
    timeline: tuple[TaggedWindow, ...]
    activity: Activity
    notes: tuple[str, ...] = ()

    def to_dict(self, top: int | None = None) -> dict[str, Any]:
        """For JSON, without `activity`; of each ranking the `top` events, by default all."""
        return {
            "file": self.name,
            "start": self.start,
            "stop": self.stop,
            "events": _first(self.events, top),
            "maxima": _first(self.maxima, top),
            "timeline": [
                {
                    "start": window.start,
                    "stop": window.stop,
                    "events": _first(window.events, top),
                    "silent": window.silent,
                }
                for window in self.timeline
            ],
            "notes": list(self.notes),
        }

    def text(self, top: int = TOP) -> str:
        """The `top` events of the recording, and up to five of each window if there are several."""
        lines, several = [_heading(self.name, self.stop)], len(self.timeline) > 1
        if several:
            lines[0] += f", {len(self.timeline)} windows: mean and maximum of each event"
        for event, p in _first(self.events, top).items():
            highest = f" {self.maxima[event]:8.4f}" if several else ""
            lines.append(f"  {p:8.4f}{highest}  {event}")
        if several:
            for window in self.timeline:
                first = _first(window.events, min(top, TOP_OF_WINDOW))
                events = [f"{event} {p:.2f}" for event, p in first.items()]
                lines.append(
                    f"  {window.start:7.1f} to {window.stop:.1f} s  {'; '.join(events)}"
                    f"{' (silence)' if window.silent else ''}"
                )
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(map(escaped, lines))

    def __str__(self) -> str:
        return self.text()


def ranked(names: Sequence[str], probabilities: np.ndarray) -> dict[str, float]:
    """The probability of each name, the highest first."""
    return {names[i]: float(probabilities[i]) for i in np.argsort(-probabilities, kind="stable")}


def _first(ranking: Mapping[str, float], top: int | None) -> dict[str, float]:
    return dict(itertools.islice(ranking.items(), top))


def _heading(name: str, seconds: float) -> str:
    digits = ".1f" if seconds >= 1 else ".2g"  # not 0.0 s for a very short one
    return f"{name or 'recording'}, {seconds:{digits}} s"
