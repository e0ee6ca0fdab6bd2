"""The synthetic corpus: ten scenes of synthesised events; no download, made in seconds.

Four scenes differ in which events occur and for how long. Six form `RELATIONAL_PAIRS`: the two
scenes of a pair have the same events, equally loud, frequent and long, and differ only in how two
of the events relate: simultaneous, or in turn. A model that sees only how active each event is
cannot separate the two scenes.

The corpus of delays, `data.source="delays"`, has six other scenes in three pairs. One of two events
starts 1.5 to 2.5 s after the other has ended; the two scenes of a pair differ only in which comes
first. The delay is longer than the receptive field of Cnn6 and Cnn10 at frames of 0.01 s.
"""

import dataclasses
import functools
import hashlib
import json
import math

import numpy as np

from ergl_jax.audio.segments import MAX_SECONDS
from ergl_jax.datasets.manifest import Clip, Corpus, Interval
from ergl_jax.datasets.sounds import GENERATORS, Voice, limit_peak, render, shaped_noise
from ergl_jax.errors import InputError

VERSION = 1  # of corpus_seed=0; raise it whenever a change here or in sounds.py changes a clip
LICENCE = "Synthetic, made by ergl_jax (Apache-2.0)"
MIN_CLIP_SECONDS = {"synthetic": 2.0, "delays": 5.0}  # by corpus
DELAY = (1.5, 2.5)  # seconds from the end of the first event to the start of the second
TRAIN_LOCATIONS, TEST_LOCATIONS = 10, 4
PEAK = 0.99  # of a waveform
EVENTS: tuple[str, ...] = tuple(GENERATORS)


@dataclasses.dataclass(frozen=True)
class _Scene:
    # event -> (probability that it occurs, least and greatest fraction of the clip it lasts)
    independent: dict[str, tuple[float, float, float]]
    related: tuple[str, ...] = ()  # the two events whose bursts relate, if any
    how: str = ""  # "over" (simultaneous), "between" (in turn), "then" (once, after a delay)


_MAIN, _OFTEN, _RARE = (1.0, 0.3, 0.7), (0.7, 0.15, 0.4), (0.4, 0.1, 0.3)
# fmt: off
_SCENES: dict[str, _Scene] = {
    "park": _Scene({"Bird": _MAIN, "Walk, footsteps": _OFTEN, "Wind": (0.5, 0.2, 0.5),
                    "Dog": _RARE, "Speech": _RARE, "Engine": _RARE}),
    "street": _Scene({"Engine": _MAIN, "Walk, footsteps": _OFTEN, "Rain": (0.4, 0.2, 0.5),
                      "Siren": _RARE, "Bird": _RARE, "Train": _RARE}),
    "station": _Scene({"Train": _MAIN, "Walk, footsteps": _OFTEN, "Speech": (0.5, 0.1, 0.3),
                       "Clock": _RARE, "Bell": _RARE, "Alarm": _RARE}),
    "home": _Scene({"Clock": _MAIN, "Water": _OFTEN, "Speech": (0.5, 0.1, 0.3),
                    "Music": _RARE, "Alarm": _RARE, "Dog": _RARE}),
}
# fmt: on
# Independent events sound at any time, so that loudness alone does not reveal the relation.
for _name, _related, _often, _sometimes in (
    ("speech_{}_music", ("Speech", "Music"), "Rain", "Walk, footsteps"),
    ("dogs_{}_bells", ("Dog", "Bell"), "Bird", "Water"),
    ("sirens_{}_engines", ("Siren", "Engine"), "Wind", "Train"),
):
    _independent = {_often: (1.0, 0.25, 0.6), _sometimes: (0.4, 0.1, 0.4)}
    for _word in ("over", "between"):
        _SCENES[_name.format(_word)] = _Scene(_independent, _related, _word)
SCENES: tuple[str, ...] = tuple(_SCENES)  # of the synthetic corpus
RELATIONAL_PAIRS: tuple[tuple[str, str], ...] = tuple(
    (over, over.replace("_over_", "_between_")) for over in SCENES if "_over_" in over
)
for _over, _ in RELATIONAL_PAIRS:
    _first, _second = _over.split("_over_")
    _scene = _SCENES[_over]
    # The events of the other pairs, each independent of the rest. Without them the two events of a
    # pair would always occur together, and clip labels could not say which sound is which.
    _others = [_SCENES[other].related for other, _ in RELATIONAL_PAIRS if other != _over]
    _guests = {event: (0.4, 0.04, 0.09) for pair in _others for event in pair}
    for _name, _order in (
        (f"{_first}_then_{_second}", _scene.related),
        (f"{_second}_then_{_first}", _scene.related[::-1]),
    ):
        _SCENES[_name] = _Scene(_scene.independent | _guests, _order, "then")
DELAYS: tuple[str, ...] = tuple(name for name in _SCENES if "_then_" in name)  # of that corpus
DELAY_PAIRS: tuple[tuple[str, str], ...] = tuple(zip(DELAYS[::2], DELAYS[1::2], strict=True))
CORPORA = {"synthetic": SCENES, "delays": DELAYS}
_ALL_SCENES = tuple(_SCENES)


def related(scene: str) -> tuple[str, ...]:
    """The two related events of a scene of RELATIONAL_PAIRS or DELAY_PAIRS; none for another scene.

    In the order in which they sound, for DELAY_PAIRS.
    """
    return _SCENES[scene].related


def corpus(
    name: str = "synthetic",
    *,
    seed: int,
    train_clips_per_scene: int,
    test_clips_per_scene: int,
    clip_seconds: float,
    times: bool = False,
) -> Corpus:
    """One of CORPORA by name; a waveform is synthesised when its clip is loaded.

    A clip depends only on the seed, its name and clip_seconds: a larger corpus contains a smaller
    one's clips. Clips are spread evenly over ten training and four test locations (groups), which
    differ in pitch, rate and spectral tilt of every event, in background and in echo; no test
    location's values occur in training. With `times`, clips have `sounds`.

    Raises InputError for clips shorter than two seconds, of delays five, or longer than an hour.
    """
    shortest, scenes = MIN_CLIP_SECONDS[name], CORPORA[name]
    if not shortest <= clip_seconds <= MAX_SECONDS:
        limits = f"use {shortest:g} or more, at most {MAX_SECONDS:g}"
        raise InputError(f"data.clip_seconds is {clip_seconds}: {limits}")

    clips = []
    for split, count, first, locations in (
        ("train", train_clips_per_scene, 0, TRAIN_LOCATIONS),
        ("test", test_clips_per_scene, TRAIN_LOCATIONS, TEST_LOCATIONS),
    ):
        for scene, scene_name in enumerate(scenes):
            for number in range(count):
                group, take = f"loc{first + number % locations:02d}", number // locations
                index = _ALL_SCENES.index(scene_name)
                clip = Synthesis(seed, index, first + number % locations, take, float(clip_seconds))
                clip_name = f"{scene_name}-{group}-{take:03d}"
                sounds = clip.sounds() if times else None
                shares = clip.shares()
                clips.append(Clip(clip_name, scene, split, group, shares, clip, sounds=sounds))
    recipe: list[str | float] = [
        VERSION,
        seed,
        train_clips_per_scene,
        test_clips_per_scene,
        float(clip_seconds),
    ]
    recipe += [name] * (name != "synthetic")
    recipe += ["finite"] * (seed != 0)  # earlier clips of other seeds could have NaN
    fingerprint = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()
    return Corpus(name, scenes, EVENTS, clips, LICENCE, fingerprint)


@dataclasses.dataclass(frozen=True)
class Synthesis:
    """The recipe of one clip; calling it makes the waveform, as `Clip.load`."""

    seed: int
    scene: int  # in SCENES, or beyond them in DELAYS
    location: int
    take: int
    clip_seconds: float

    def __call__(self, sample_rate: int, channel: str = "mean", notes: object = ()) -> np.ndarray:
        """The waveform (round(clip_seconds * sample_rate),) float32 in -1..1, for any channel."""
        wave = self._mix(sample_rate, self.activity())
        return wave / limit_peak(wave, PEAK)

    def stems(self, sample_rate: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The background (L,) and each event's sound (L,) by name; their sum is the waveform."""
        activity = self.activity()
        gain = limit_peak(self._mix(sample_rate, activity), PEAK)
        background = self._mix(sample_rate, {})
        return background / gain, {
            event: (self._mix(sample_rate, {event: bursts}) - background) / gain
            for event, bursts in activity.items()
        }

    def _mix(self, sample_rate: int, activity: dict[str, np.ndarray]) -> np.ndarray:
        """Background and the bursts of `activity` with their echo; the peak is not limited."""
        rng = self._rng("sound")
        coordinates = self.coordinates()
        length, colour = round(self.clip_seconds * sample_rate), coordinates[-3]
        slope = -(3 + 2 * colour) / 6.02  # 1 to 5 dB an octave
        wave = shaped_noise(rng, length, sample_rate, lambda f: f**slope)
        floor = 10 ** (rng.uniform(-48, -38) / 20)  # RMS of the background
        for event, intervals in activity.items():
            index = EVENTS.index(event)
            pitch, rate, tilt = coordinates[3 * index : 3 * index + 3]
            voice = Voice(2 ** (0.5 * pitch), 1.3**rate, 2.5 * tilt)
            snr = self._rng("level", index).uniform(5, 16)
            for number, (start, stop) in enumerate(intervals):
                burst_rng = self._rng("burst", index, number)
                gain = 10 ** ((snr + burst_rng.uniform(-1.5, 1.5)) / 20)
                burst = render(event, burst_rng, voice, stop - start, sample_rate)
                at = round(start * sample_rate)
                part = wave[at : at + len(burst)]
                part += np.float32(gain) * burst[: len(part)]
        wave *= np.float32(floor)
        delay, strength = coordinates[-2:]
        return _echo(wave, round((0.02 + 0.012 * delay) * sample_rate), 0.25 + 0.15 * strength)

    def activity(self) -> dict[str, np.ndarray]:
        """Start and stop of each event's bursts in seconds, (bursts, 2) float64.

        Bursts of one event are in order and never overlap.
        """
        rng, scene = self._rng("layout"), _SCENES[_ALL_SCENES[self.scene]]
        activity: dict[str, np.ndarray] = {}
        if scene.related:
            bursts = self._delayed(rng) if scene.how == "then" else self._related(rng, scene.how)
            activity |= dict(zip(scene.related, bursts, strict=True))
        for event, (probability, least, most) in scene.independent.items():
            if rng.random() < probability:
                activity[event] = self._independent(rng, rng.uniform(least, most))
        return activity

    def shares(self) -> np.ndarray:
        """The fraction of the clip in which each of EVENTS sounds, (E,) float32 in 0..1."""
        activity = self.activity()
        seconds = [np.sum(np.diff(activity.get(event, ((0, 0),)))) for event in EVENTS]
        return np.array(seconds, np.float32) / np.float32(self.clip_seconds)

    def sounds(self) -> tuple[Interval, ...]:
        """The bursts of `activity`."""
        return tuple(
            Interval(EVENTS.index(event), float(start), float(stop))
            for event, bursts in self.activity().items()
            for start, stop in bursts
        )

    def coordinates(self) -> np.ndarray:
        """Pitch, rate and tilt of each event, background colour, echo delay and echo strength:
        (3 E + 3,) in -1..1.

        A Latin hypercube: every axis is cut into as many cells as there are locations and each
        location has its own cell, so no two locations share a value on any axis.
        """
        cells = _location_cells(self.seed)[self.location]
        inside = self._rng("voice").random(len(cells))
        return 2 * (cells + inside) / (TRAIN_LOCATIONS + TEST_LOCATIONS) - 1

    def _delayed(self, rng: np.random.Generator) -> np.ndarray:
        """Bursts (2, 1, 2) of two events, one after the other with a delay between them."""
        first, second = rng.uniform(0.4, 0.9, 2)
        delay = rng.uniform(*DELAY)
        start = rng.uniform(0, self.clip_seconds - first - delay - second)
        again = start + first + delay
        return np.array([[[start, start + first]], [[again, again + second]]])

    def _related(self, rng: np.random.Generator, how: str) -> np.ndarray:
        """Bursts (2, bursts, 2) of two events, simultaneous or in turn.

        The clip is cut into equal periods. In each, both events sound once, for at most 0.45 of
        it. The first is in one half of the period, drawn once per clip; the second is in the same
        half around the same moment, or in the other half. So the times, lengths and number of
        each event's bursts have one distribution under both relations.
        """
        fewest = max(2, math.ceil(self.clip_seconds / 2))
        bursts = int(rng.integers(fewest, max(fewest, int(self.clip_seconds / 0.9)), endpoint=True))
        period = self.clip_seconds / bursts
        length = rng.uniform(0.33, 0.45, (2, bursts))
        margin = length.max(axis=0) / 2  # the longer one fits into its half
        centre = rng.uniform(margin, 0.5 - margin, (2, bursts))
        half = int(rng.integers(2))
        halves = np.array([[half], [half if how == "over" else 1 - half]])
        if how == "over":
            centre[1] = centre[0]
        centre += np.arange(bursts) + 0.5 * halves
        return period * np.stack([centre - length / 2, centre + length / 2], axis=-1)

    def _independent(self, rng: np.random.Generator, share: float) -> np.ndarray:
        """Bursts (bursts, 2) at random times that fill the fraction `share` of the clip."""
        most = max(1, min(4, int(share * self.clip_seconds / 0.4)))
        bursts = int(rng.integers(1, most, endpoint=True))
        sounding = rng.dirichlet(np.full(bursts, 8.0)) * share
        silent = rng.dirichlet(np.ones(bursts + 1))[:bursts] * (1 - share)
        stop = np.cumsum(sounding + silent)
        return self.clip_seconds * np.stack([stop - sounding, stop], axis=-1)

    def _rng(self, purpose: str, *indices: int) -> np.random.Generator:
        """A generator for each purpose, so that no draw depends on the sample rate."""
        key = [int.from_bytes(purpose.encode(), "big"), *indices]
        return np.random.default_rng([self.seed, self.scene, self.location, self.take, *key])


@functools.lru_cache(maxsize=8)
def _location_cells(seed: int) -> np.ndarray:
    """Each location's cell on each axis, (locations, axes): every column is a permutation."""
    locations, axes = TRAIN_LOCATIONS + TEST_LOCATIONS, 3 * len(EVENTS) + 3
    ordered = np.tile(np.arange(locations)[:, None], axes)
    return np.random.default_rng([seed, VERSION]).permuted(ordered, axis=0)


def _echo(wave: np.ndarray, delay: int, strength: float) -> np.ndarray:
    """Two reflections of a small room."""
    echoed = wave.copy()
    for reflection in (1, 2):
        late = reflection * delay + reflection // 2 * (delay // 3)
        echoed[late:] += np.float32(strength**reflection) * wave[:-late]
    return echoed
