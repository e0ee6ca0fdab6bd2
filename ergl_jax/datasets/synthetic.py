"""The embedded corpus: ten scenes of synthesised events; needs no download, made in seconds.

Four scenes are told apart by which events occur and for how long. Six form `RELATIONAL_PAIRS`: the
two scenes of a pair hold the same events, as loud, as often and for the same share of the time, and
differ only in how two of the events relate: one over the other, or the two in turn. A model that
knows only event activity can't tell them apart.
"""

import dataclasses
import functools
import hashlib
import json
import math

import numpy as np

from ergl_jax.audio.segments import MAX_SECONDS
from ergl_jax.datasets.manifest import Clip, Corpus
from ergl_jax.datasets.synthesis import GENERATORS, Voice, render, shaped_noise
from ergl_jax.errors import InputError

VERSION = 1  # raise it whenever a change here or in synthesis.py changes a clip
LICENCE = "Synthetic, made by ergl_jax (Apache-2.0)"
MIN_CLIP_SECONDS = 2.0
TRAIN_LOCATIONS, TEST_LOCATIONS = 10, 4
EVENTS: tuple[str, ...] = tuple(GENERATORS)


@dataclasses.dataclass(frozen=True)
class _Scene:
    # event -> (probability that it occurs, its least and greatest share of the clip)
    apart: dict[str, tuple[float, float, float]]
    related: tuple[str, ...] = ()  # the two events whose bursts relate, if any
    over: bool = False  # they sound over one another; else in turn


_SCENES: dict[str, _Scene] = {
    "park": _Scene(
        {
            "Bird": (1.0, 0.3, 0.7),
            "Walk, footsteps": (0.7, 0.15, 0.4),
            "Wind": (0.5, 0.2, 0.5),
            "Dog": (0.4, 0.1, 0.3),
            "Speech": (0.4, 0.1, 0.3),
            "Engine": (0.4, 0.1, 0.3),
        }
    ),
    "street": _Scene(
        {
            "Engine": (1.0, 0.3, 0.7),
            "Walk, footsteps": (0.7, 0.15, 0.4),
            "Rain": (0.4, 0.2, 0.5),
            "Siren": (0.4, 0.1, 0.3),
            "Bird": (0.4, 0.1, 0.3),
            "Train": (0.4, 0.1, 0.3),
        }
    ),
    "station": _Scene(
        {
            "Train": (1.0, 0.3, 0.7),
            "Walk, footsteps": (0.7, 0.15, 0.4),
            "Speech": (0.5, 0.1, 0.3),
            "Clock": (0.4, 0.1, 0.3),
            "Bell": (0.4, 0.1, 0.3),
            "Alarm": (0.4, 0.1, 0.3),
        }
    ),
    "home": _Scene(
        {
            "Clock": (1.0, 0.3, 0.7),
            "Water": (0.7, 0.15, 0.4),
            "Speech": (0.5, 0.1, 0.3),
            "Music": (0.4, 0.1, 0.3),
            "Alarm": (0.4, 0.1, 0.3),
            "Dog": (0.4, 0.1, 0.3),
        }
    ),
}
# The events apart sound at any time, so that loudness alone doesn't give the relation away.
for _name, _related, _often, _sometimes in (
    ("speech_{}_music", ("Speech", "Music"), "Rain", "Walk, footsteps"),
    ("dogs_{}_bells", ("Dog", "Bell"), "Bird", "Water"),
    ("sirens_{}_engines", ("Siren", "Engine"), "Wind", "Train"),
):
    _apart = {_often: (1.0, 0.25, 0.6), _sometimes: (0.4, 0.1, 0.4)}
    for _word in ("over", "between"):
        _SCENES[_name.format(_word)] = _Scene(_apart, _related, over=_word == "over")

SCENES: tuple[str, ...] = tuple(_SCENES)
RELATIONAL_PAIRS: tuple[tuple[str, str], ...] = tuple(
    (over, over.replace("_over_", "_between_")) for over in SCENES if "_over_" in over
)


def related(scene: str) -> tuple[str, ...]:
    """The two events whose bursts relate in a scene of RELATIONAL_PAIRS; else none."""
    return _SCENES[scene].related


def corpus(
    *, seed: int, train_clips_per_scene: int, test_clips_per_scene: int, clip_seconds: float
) -> Corpus:
    """The corpus; its waveforms are synthesised when a clip is loaded.

    A clip depends on the seed, its name and clip_seconds alone: a larger corpus holds a smaller
    one's clips. Clips are spread evenly over ten training and four test locations (groups), which
    differ in pitch, rate and colour of every event, in background and in echo; what a test
    location sounds like never occurs in training.

    Raises:
        InputError: a negative seed, a count below 1, or clips shorter than two seconds or longer
          than an hour.
    """
    if seed < 0:
        raise InputError(f"seed is {seed}: use 0 or more")
    counts = {
        "train_clips_per_scene": train_clips_per_scene,
        "test_clips_per_scene": test_clips_per_scene,
    }
    for field, count in counts.items():
        if count < 1:
            raise InputError(f"{field} is {count}: use 1 or more")
    if not MIN_CLIP_SECONDS <= clip_seconds <= MAX_SECONDS:
        raise InputError(
            f"clip_seconds is {clip_seconds}: use {MIN_CLIP_SECONDS:g} to {MAX_SECONDS:g}"
        )

    clips = []
    for split, count, first, locations in (
        ("train", train_clips_per_scene, 0, TRAIN_LOCATIONS),
        ("test", test_clips_per_scene, TRAIN_LOCATIONS, TEST_LOCATIONS),
    ):
        for scene, scene_name in enumerate(SCENES):
            for number in range(count):
                location, take = first + number % locations, number // locations
                synthesis = Synthesis(seed, scene, location, take, float(clip_seconds))
                clips.append(
                    Clip(
                        name=f"{scene_name}-loc{location:02d}-{take:03d}",
                        scene=scene,
                        split=split,
                        group=f"loc{location:02d}",
                        events=synthesis.shares(),
                        load=synthesis,
                    )
                )
    decisive = [VERSION, seed, train_clips_per_scene, test_clips_per_scene, float(clip_seconds)]
    return Corpus(
        name="synthetic",
        scenes=SCENES,
        events=EVENTS,
        clips=clips,
        licence=LICENCE,
        fingerprint=hashlib.sha256(json.dumps(decisive).encode()).hexdigest(),
    )


@dataclasses.dataclass(frozen=True)
class Synthesis:
    """How one clip is made. Call it for the waveform: `Clip.load`."""

    seed: int
    scene: int
    location: int
    take: int
    clip_seconds: float

    def __call__(self, sample_rate: int, channel: str = "mean") -> np.ndarray:
        """The waveform (round(clip_seconds * sample_rate),) float32, within -1..1.

        It has one channel, whichever is asked for.
        """
        wave = self._mix(sample_rate, self.activity())
        return wave / _headroom(wave)

    def stems(self, sample_rate: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The background (L,) and each event's sound (L,) by name; their sum is the waveform."""
        activity = self.activity()
        gain = _headroom(self._mix(sample_rate, activity))
        background = self._mix(sample_rate, {})
        return background / gain, {
            event: (self._mix(sample_rate, {event: bursts}) - background) / gain
            for event, bursts in activity.items()
        }

    def _mix(self, sample_rate: int, activity: dict[str, np.ndarray]) -> np.ndarray:
        """Background and the bursts of `activity`, echo included, as loud as they come."""
        rng = self._rng("sound")
        coordinates = self.coordinates()
        wave = self._background(rng, coordinates[-3], sample_rate)
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
        """The events that occur and when: event -> (bursts, 2) float64, start and stop seconds.

        Bursts of one event are in order and never overlap.
        """
        rng, scene = self._rng("layout"), _SCENES[SCENES[self.scene]]
        activity = {}
        if scene.related:
            activity |= dict(zip(scene.related, self._related(rng, scene.over), strict=True))
        for event, (probability, least, most) in scene.apart.items():
            if rng.random() < probability:
                activity[event] = self._apart(rng, rng.uniform(least, most))
        return activity

    def shares(self) -> np.ndarray:
        """The share of the clip in which each of EVENTS sounds, (E,) float32 in 0..1."""
        activity = self.activity()
        return np.array(
            [np.sum(np.diff(activity.get(event, ((0, 0),)))) for event in EVENTS], np.float32
        ) / np.float32(self.clip_seconds)

    def coordinates(self) -> np.ndarray:
        """Where in -1..1 the clip lies on each axis: pitch, rate, tilt of each event, background
        colour, echo delay, echo strength; (3 E + 3,).

        Every axis is cut into as many cells as there are locations, and each location has a cell
        of its own (a Latin hypercube): no two locations share a value on any axis.
        """
        cells = _location_cells(self.seed)[self.location]
        inside = self._rng("voice").random(len(cells))
        return 2 * (cells + inside) / (TRAIN_LOCATIONS + TEST_LOCATIONS) - 1

    def _related(self, rng: np.random.Generator, over: bool) -> np.ndarray:
        """Bursts (2, bursts, 2) of two events, over one another or in turn.

        The clip is cut into equal periods. In each, both events sound once, for at most 0.45 of
        it. The first is in one half of the period, drawn once a clip; the second is in the same
        half around the same moment, or in the other half. So the times, lengths and number of each
        event's bursts follow one distribution whichever relation holds.
        """
        fewest = max(2, math.ceil(self.clip_seconds / 2))
        bursts = int(rng.integers(fewest, max(fewest, int(self.clip_seconds / 0.9)), endpoint=True))
        period = self.clip_seconds / bursts
        length = rng.uniform(0.33, 0.45, (2, bursts))
        margin = length.max(axis=0) / 2  # the longer one fits into its half
        centre = rng.uniform(margin, 0.5 - margin, (2, bursts))
        half = int(rng.integers(2))
        halves = np.array([[half], [half if over else 1 - half]])
        if over:
            centre[1] = centre[0]
        centre += np.arange(bursts) + 0.5 * halves
        return period * np.stack([centre - length / 2, centre + length / 2], axis=-1)

    def _apart(self, rng: np.random.Generator, share: float) -> np.ndarray:
        """Bursts (bursts, 2) at random times that fill `share` of the clip."""
        most = max(1, min(4, int(share * self.clip_seconds / 0.4)))
        bursts = int(rng.integers(1, most, endpoint=True))
        sounding = rng.dirichlet(np.full(bursts, 8.0)) * share
        silent = rng.dirichlet(np.ones(bursts + 1))[:bursts] * (1 - share)
        stop = np.cumsum(sounding + silent)
        return self.clip_seconds * np.stack([stop - sounding, stop], axis=-1)

    def _background(self, rng: np.random.Generator, colour: float, sample_rate: int) -> np.ndarray:
        """Noise of RMS 1 whose power falls by 1 to 5 dB an octave."""
        return shaped_noise(
            rng,
            round(self.clip_seconds * sample_rate),
            sample_rate,
            lambda f: f ** (-(3 + 2 * colour) / 6.02),
        )

    def _rng(self, purpose: str, *indices: int) -> np.random.Generator:
        """A source of chance of its own for each purpose: none depends on the sample rate."""
        key = int.from_bytes(purpose.encode(), "big")
        return np.random.default_rng(
            [self.seed, self.scene, self.location, self.take, key, *indices]
        )


@functools.lru_cache(maxsize=8)
def _location_cells(seed: int) -> np.ndarray:
    """Each location's cell on each axis, (locations, axes): every column is a permutation."""
    locations, axes = TRAIN_LOCATIONS + TEST_LOCATIONS, 3 * len(EVENTS) + 3
    ordered = np.tile(np.arange(locations)[:, None], axes)
    return np.random.default_rng([seed, VERSION]).permuted(ordered, axis=0)


def _headroom(wave: np.ndarray) -> np.float32:
    """What to divide a waveform by so that it stays within 0.99; 1 where it does."""
    return np.float32(max(1.0, np.abs(wave).max() / 0.99))


def _echo(wave: np.ndarray, delay: int, strength: float) -> np.ndarray:
    """Two reflections of a small room."""
    echoed = wave.copy()
    for reflection in (1, 2):
        late = reflection * delay + reflection // 2 * (delay // 3)
        echoed[late:] += np.float32(strength**reflection) * wave[:-late]
    return echoed
