"""Where in a recording its events are: probabilities over time, onsets and offsets.

Shapes: T steps of time, S steps of a window, n events.
"""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ergl_jax.audio import FrontEnd

DETECTED = 0.5  # probability from which an event counts as detected


class Span(NamedTuple):
    """A stretch of time in which an event is present, in seconds."""

    onset: float
    offset: float
    event: str


@dataclasses.dataclass(frozen=True)
class Activity:
    """Probabilities of events over a recording's time.

    Attributes:
      events: names, in the order of `probabilities`.
      step: seconds of a step: of an encoder frame (Cnn14: 0.32), or a whole window for models that
        do not locate events. Some are shorter or longer, where windows meet.
      edges: (T + 1,), in seconds: the start of each step, and the last one's end.
      probabilities: (T, n); NaN in silent windows, unless all are silent.
    """

    events: tuple[str, ...]
    step: float
    edges: np.ndarray
    probabilities: np.ndarray

    def spans(self, threshold: float = DETECTED) -> list[Span]:
        """The longest stretches in which an event's probability is `threshold` or more.

        By onset, then offset and name. Nothing is smoothed.
        """
        active = np.pad(self.probabilities >= threshold, ((1, 1), (0, 0)))  # NaN is not
        changes = np.diff(active.astype(np.int8), axis=0)  # (T + 1, n): 1 at onsets, -1 at offsets
        return sorted(
            Span(float(self.edges[onset]), float(self.edges[offset]), event)
            for event, change in zip(self.events, changes.T, strict=True)
            for onset, offset in zip(
                np.flatnonzero(change > 0), np.flatnonzero(change < 0), strict=True
            )
        )

    def labels(self, threshold: float = DETECTED) -> str:
        """Lines of onset, offset and event, separated by tabs, without a header.

        Audacity imports them as a label track, and sed_eval and dcase_util read them as an event
        list.
        """
        return "".join(
            f"{onset:.3f}\t{offset:.3f}\t{' '.join(event.split())}\n"
            for onset, offset, event in self.spans(threshold)
        )


def join(
    events: tuple[str, ...],
    windows: Iterable[tuple[float, float, np.ndarray]],
    step: float,
    stop: float,
) -> Activity:
    """The Activity of a recording from that of its windows.

    A window's last step lasts until its end. Where two windows overlap, the earlier one counts.

    Args:
      events: names.
      windows: (start, end, probabilities (S, n)) of each, in order; in seconds.
      step: seconds of a step.
      stop: the recording's end in seconds; steps after it are left out.
    """
    starts, rows, end = [], [], 0.0
    for start, window_end, probabilities in windows:
        edges = start + step * np.arange(len(probabilities) + 1)
        edges[-1] = window_end
        edges = edges.clip(end, stop)
        kept = np.diff(edges) > 1e-6  # less is rounding
        starts.append(edges[:-1][kept])
        rows.append(probabilities[kept])
        end = float(edges[-1])
    return Activity(events, step, np.array([*np.concatenate(starts), end]), np.concatenate(rows))


def step_seconds(front_end: FrontEnd, frames: int, steps: int) -> float:
    """Seconds of one step, of `steps` that a model has for a spectrogram of `frames`."""
    return frames_per_step(frames, steps) * front_end.frame_seconds


def frames_per_step(frames: int, steps: int) -> float:
    """Spectrogram frames of one step: the encoder halves time several times, rounding down."""
    if steps == 1:
        return frames
    return next((2**k for k in range(12) if frames // 2**k == steps), frames / steps)
