"""Polyphonic clips mixed from isolated recordings, with the ground truth of every event.

A scene file (scene_files.py) defines which events a scene contains and how they relate:
simultaneous ("over"), in turn, or freely. Nothing but the relation differs between "over" and "in
turn": an event's number, durations, levels and times have the same distribution.

`compose` draws what sounds when, `mix` makes the waveform.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ergl_jax.audio import read_audio
from ergl_jax.datasets.esc import Recording
from ergl_jax.datasets.scene_files import Part, Scene, SceneFile
from ergl_jax.datasets.sounds import fade_ends, limit_peak, shaped_noise
from ergl_jax.errors import InputError

VERSION = 1  # raise it whenever a change here changes a clip
SILENCE = -40.0  # dB below a recording's loudest frame: quieter ends are trimmed
FRAME_SECONDS = 0.01
FADE_SECONDS = 0.01  # at both ends of what is placed
LOOP_SECONDS = 0.5  # of the crossfade from a looped background's end to its start
PEAK = 10 ** (-1 / 20)  # of a clip; a louder mixture is turned down as a whole


@dataclasses.dataclass(frozen=True)
class Sound:
    """Part of a recording in a clip."""

    event: str
    recording: Recording
    onset: int  # first sample in the clip
    level: float  # RMS, dB above the background's
    waveform: np.ndarray  # (l,) float32 of RMS 1, its ends faded

    @property
    def offset(self) -> int:
        """The sample after its last."""
        return self.onset + len(self.waveform)


@dataclasses.dataclass(frozen=True)
class Soundscape:
    """A clip before it is mixed."""

    background: np.ndarray  # (length,) float32 of RMS 1: noise or a looped recording
    background_level: float  # RMS, dB of full scale
    looped: tuple[Sound, ...]  # the recording of the background, if it is one
    sounds: tuple[Sound, ...]  # by onset

    def all_sounds(self) -> tuple[Sound, ...]:
        """All recorded sounds, a looped background first."""
        return self.looped + self.sounds


def load_recording(
    recording: Recording, sample_rate: int, notes: list[str] | None = None
) -> np.ndarray:
    """Its waveform (L,) float32 without silent ends; InputError if all of it is silent.

    `notes` as in `audio.read_audio`.
    """
    waveform = trim(read_audio(recording.path, sample_rate, notes=notes), sample_rate)
    if not len(waveform):
        raise InputError(f"{recording.path}: is silent; remove its row")
    return waveform


def by_event(
    scene_file: SceneFile, recordings: Sequence[Recording], fold: str
) -> dict[str, list[Recording]]:
    """A fold's recordings of each event, by name; InputError for an event without recordings."""
    available = sorted((r for r in recordings if r.fold == fold), key=lambda r: r.name)
    pool: dict[str, list[Recording]] = {}
    for event in dict.fromkeys(event for scene in scene_file.scenes for event in scene.events()):
        labels = scene_file.labels[event]
        pool[event] = [recording for recording in available if recording.label in labels]
        if not pool[event]:
            known = ", ".join(sorted({recording.label for recording in available})) or "none at all"
            raise InputError(
                f"event {event!r}: fold {fold} has no recording with the label "
                f"{' or '.join(labels)}; its labels are {known}"
            )
    return pool


def arrange(
    part: Part, rng: np.random.Generator, seconds: float
) -> list[tuple[str, float, float, float]]:
    """Draws when a part's events sound: (event, start, stop, level), in seconds and dB.

    A clip is cut into equal periods, and each event sounds once in each. A period has as many slots
    as there are related events: in turn, each event has its own; over one another, all are in the
    same one, around the same moment. The slot is drawn once per clip, so an event's own times have
    one distribution under both relations.
    """
    groups = [(event,) for event in part.events] if part.how == "freely" else [part.events]
    arranged = []
    for events in groups:
        if rng.random() >= part.chance:
            continue
        count, slots = int(rng.integers(*part.times, endpoint=True)), len(events)
        slot = seconds / count / slots
        lengths = rng.uniform(*part.seconds, (slots, count))
        levels = rng.uniform(*part.level, (slots, count))
        order = rng.permutation(slots)
        if part.how == "over":
            order[:] = order[0]
            margins = np.tile(lengths.max(axis=0) / 2, (slots, 1))
            moments = np.tile(rng.random(count), (slots, 1))
        else:
            margins = lengths / 2
            moments = rng.random((slots, count))
        centres = margins + moments * np.maximum(slot - 2 * margins, 0)
        centres += slot * (order[:, None] + slots * np.arange(count))
        for i, event in enumerate(events):
            for centre, length, level in zip(centres[i], lengths[i], levels[i], strict=True):
                arranged.append((event, centre - length / 2, centre + length / 2, float(level)))
    return arranged


def compose(
    scene: Scene,
    pool: Mapping[str, Sequence[Recording]],
    load: Callable[[Recording], np.ndarray],
    key: Sequence[int],
    *,
    seconds: float,
    sample_rate: int,
) -> Soundscape:
    """Draws a clip of a scene.

    Args:
      scene: what to draw.
      pool: the recordings to choose from, by event.
      load: a recording's waveform (L,) float32 at `sample_rate`, without silent ends.
      key: seeds of the clip, integers >= 0.
      seconds: of the clip.
      sample_rate: Hz.
    """
    length = round(seconds * sample_rate)
    rng, colours = (np.random.default_rng([*key, purpose]) for purpose in (0, 1))
    level = float(rng.uniform(*scene.background.level))
    looped: tuple[Sound, ...] = ()
    if scene.background.event:
        recording = _choose(pool[scene.background.event], rng)
        background = _unit(loop(load(recording), length, round(LOOP_SECONDS * sample_rate), rng))
        looped = (Sound(scene.background.event, recording, 0, 0.0, background),)
    else:
        slope = (scene.background.noise or 0.0) / (20 * math.log10(2))
        background = _unit(shaped_noise(colours, length, sample_rate, lambda f: f**slope))
    sounds = []
    for part in scene.parts:
        for event, start, stop, gain in arrange(part, rng, seconds):
            recording = _choose(pool[event], rng)
            first, longest = (int(t * sample_rate + 1e-6) for t in (start, stop - start))
            waveform = cut(load(recording), longest, sample_rate, rng)
            first += (longest - len(waveform)) // 2  # about the same moment
            sounds.append(Sound(event, recording, first, gain, _unit(waveform)))
    sounds.sort(key=lambda sound: (sound.onset, sound.event))
    return Soundscape(background, level, looped, tuple(sounds))


def _choose(recordings: Sequence[Recording], rng: np.random.Generator) -> Recording:
    return recordings[int(rng.integers(len(recordings)))]


def mix(soundscape: Soundscape) -> np.ndarray:
    """The waveform (length,) float32 of a clip; its peak is at most PEAK."""
    wave = soundscape.background.copy()
    for sound in soundscape.sounds:
        wave[sound.onset : sound.offset] += np.float32(10 ** (sound.level / 20)) * sound.waveform
    wave *= np.float32(10 ** (soundscape.background_level / 20))
    return wave / limit_peak(wave, PEAK)


def shares(soundscape: Soundscape, events: Sequence[str]) -> np.ndarray:
    """The share of a clip in which each event sounds, (events,) float32 in 0..1."""
    sounding = np.zeros((len(events), len(soundscape.background)), bool)
    for sound in soundscape.all_sounds():
        sounding[events.index(sound.event), sound.onset : sound.offset] = True
    return sounding.mean(axis=1, dtype=np.float32)


def trim(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """A waveform (L,) from its first to its last frame above SILENCE; empty if it is all zeros."""
    frame = round(FRAME_SECONDS * sample_rate)
    active = np.flatnonzero(_active(_energies(waveform, frame)))
    return waveform[active[0] * frame : (active[-1] + 1) * frame] if len(active) else waveform[:0]


def cut(
    waveform: np.ndarray, length: int, sample_rate: int, rng: np.random.Generator
) -> np.ndarray:
    """At most `length` samples of a trimmed waveform (L,), without silent ends, faded at both.

    A random stretch that starts with sound and is within 6 dB of the loudest one, since the tail
    of an echo does not represent an event.
    """
    frame = round(FRAME_SECONDS * sample_rate)
    if len(waveform) > length:
        energies = _energies(waveform, frame)
        sums = np.concatenate([[0.0], np.cumsum(energies)])
        starts = np.arange((len(waveform) - length) // frame + 1)
        stretch = sums[np.minimum(starts + max(length // frame, 1), len(energies))] - sums[starts]
        stretch = np.where(_active(energies)[starts], stretch, 0)
        start = frame * int(rng.choice(np.flatnonzero(stretch >= stretch.max() / 4)))
        waveform = waveform[start : start + length]
    waveform = trim(waveform, sample_rate).copy()
    fade = min(round(FADE_SECONDS * sample_rate), len(waveform) // 2)
    fade_ends(waveform, (np.arange(fade, dtype=np.float32) + 1) / np.float32(fade + 1))
    return waveform


def loop(waveform: np.ndarray, length: int, crossfade: int, rng: np.random.Generator) -> np.ndarray:
    """(length,) of a waveform (L,) repeated from a random point.

    Its end fades into its start over `crossfade` samples (at most half of it) at constant power.
    """
    crossfade = min(crossfade, len(waveform) // 2)
    ramp = np.linspace(0, np.pi / 2, crossfade, dtype=np.float32)
    ring = waveform[: len(waveform) - crossfade].copy()
    tail = waveform[len(waveform) - crossfade :]
    ring[:crossfade] = ring[:crossfade] * np.sin(ramp) + tail * np.cos(ramp)
    return np.resize(np.roll(ring, -int(rng.integers(len(ring)))), length)


def _energies(waveform: np.ndarray, frame: int) -> np.ndarray:
    """Mean square of each frame (ceil(L / frame),) float64; zeros fill the last."""
    padded = np.pad(waveform, (0, -len(waveform) % frame)).reshape(-1, frame)
    return np.mean(np.square(padded, dtype=np.float64), axis=1)


def _active(energies: np.ndarray) -> np.ndarray:
    return (energies > 0) & (energies >= energies.max(initial=0) * 10 ** (SILENCE / 10))


def _unit(waveform: np.ndarray) -> np.ndarray:
    return waveform / np.float32(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))) + 1e-12)
