"""Soundscapes: sounds are where and as loud as noted, and only the relation differs."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from ergl_jax.datasets import soundscapes
from ergl_jax.datasets.esc import Recording, read_meta
from ergl_jax.datasets.scene_files import Background, Part, Scene
from ergl_jax.datasets.soundscapes import arrange, compose, cut, loop, mix, trim
from ergl_jax.errors import InputError

RATE = 8000
NOISE = Background(noise=-3.0, event=None, level=(-40.0, -40.0))
PAIR = Part(("a", "b"), "over", (2, 4), (0.3, 0.5), (6.0, 12.0), 1.0)


def recording(name):
    return Recording(f"{name}.wav", Path(f"{name}.wav"), name, "1", f"source of {name}", "", "", "")


POOL = {name: [recording(name)] for name in "abc"}


def tone(record):
    """Two seconds, of another frequency for each recording."""
    return np.sin(np.arange(2 * RATE, dtype=np.float32) * (0.3 + 0.2 * "abc".index(record.label)))


def composed(*parts, background=NOISE, key=(0,), load=tone):
    scene = Scene("scene", background, parts)
    return compose(scene, POOL, load, key, seconds=4.0, sample_rate=RATE)


def db(waveform):
    return 10 * np.log10(np.mean(np.square(waveform, dtype=np.float64)))


@st.composite
def related(draw):
    slots, most = draw(st.integers(2, 4)), draw(st.integers(1, 4))
    longest = 4.0 / most / slots
    seconds = sorted(draw(st.floats(0.05, max(0.05, longest))) for _ in range(2))
    times = (draw(st.integers(1, most)), most)
    return Part(tuple("abcd"[:slots]), "over", times, tuple(seconds), (0.0, 6.0), 1.0)


@settings(max_examples=50, deadline=None)
@given(related(), st.integers(0, 1000))
def test_over_one_another_and_in_turn(part, seed):
    for how in ("over", "in_turn"):
        drawn = arrange(dataclasses.replace(part, how=how), np.random.default_rng(seed), 4.0)
        times = {e: [(x[1], x[2]) for x in drawn if x[0] == e] for e in part.events}
        counts = {len(spans) for spans in times.values()}
        assert len(counts) == 1 and part.times[0] <= counts.pop() <= part.times[1]
        for moments in zip(*times.values(), strict=True):
            starts, stops = zip(*moments, strict=True)
            assert min(starts) >= -1e-9 and max(stops) <= 4 + 1e-9
            low, high = part.seconds
            assert all(low - 1e-9 <= b - a <= high + 1e-9 for a, b in moments)
            if how == "over":
                assert max(starts) < min(stops)  # all at once
        if how == "in_turn":
            spans = sorted(x[1:3] for x in drawn)
            assert all(a[1] <= b[0] + 1e-9 for a, b in zip(spans, spans[1:], strict=False))


def test_an_events_own_times_do_not_show_the_relation():
    def draws(how):
        part = dataclasses.replace(PAIR, how=how)
        return [
            arrange(part, np.random.default_rng([seed, how == "over"]), 4) for seed in range(400)
        ]

    over, in_turn = draws("over"), draws("in_turn")
    for event in PAIR.events:
        for measure in (
            lambda sounds: len(sounds),
            lambda sounds: sounds[0][2] - sounds[0][1],
            lambda sounds: sounds[0][1] + sounds[0][2],
            lambda sounds: sounds[-1][2],
        ):
            samples = [
                [measure([x for x in drawn if x[0] == event]) for drawn in clips]
                for clips in (over, in_turn)
            ]
            assert ks_2samp(*samples).pvalue > 0.001


def test_free_events_come_by_chance_each_for_itself_and_not_over_themselves():
    part = Part(("a", "b"), "freely", (1, 4), (0.2, 1.0), (0, 0), 0.5)
    clips = [arrange(part, np.random.default_rng(seed), 4.0) for seed in range(400)]
    held = np.array([[any(x[0] == event for x in drawn) for event in "ab"] for drawn in clips])
    # Four standard deviations of a share of 400 clips.
    assert np.all(abs(held.mean(0) - 0.5) < 0.1) and abs(held.all(axis=1).mean() - 0.25) < 0.09
    for drawn in clips:
        for event in "ab":
            spans = [x[1:3] for x in drawn if x[0] == event]
            assert all(a[1] <= b[0] + 1e-9 for a, b in zip(spans, spans[1:], strict=False))


@pytest.mark.parametrize("how", ["over", "in_turn", "freely"])
def test_energy_is_where_and_as_loud_as_the_sounds(how):
    clip = composed(dataclasses.replace(PAIR, how=how), key=(3,))
    alone = mix(dataclasses.replace(clip, sounds=()))
    added = mix(clip) - alone
    assert db(alone) == pytest.approx(-40, abs=0.01)
    active = np.zeros(len(clip.background), int)
    for sound in clip.sounds:
        active[sound.onset : sound.offset] += 1
    assert 0 == active.min() and np.abs(added[active == 0]).max() < 1e-7
    if how != "freely":
        assert active.max() == (2 if how == "over" else 1)
    for sound in clip.sounds:
        assert 6 <= sound.level <= 12
        if active[sound.onset : sound.offset].max() == 1:
            measured = db(added[sound.onset : sound.offset]) - db(alone)
            assert measured == pytest.approx(sound.level, abs=0.05)


def test_a_recorded_background_sounds_throughout_and_is_an_event():
    background = Background(noise=None, event="c", level=(-30.0, -30.0))
    clip = composed(PAIR, background=background)
    looped = clip.all_sounds()[0]
    assert (looped.event, looped.onset, looped.offset, looped.level) == ("c", 0, 4 * RATE, 0.0)
    alone = mix(dataclasses.replace(clip, sounds=()))
    assert db(alone) == pytest.approx(-30, abs=0.01)
    assert min(db(frame) for frame in alone.reshape(-1, 400)) > -36


def test_a_loud_mixture_is_turned_down_as_a_whole():
    clip = composed(dataclasses.replace(PAIR, level=(50.0, 50.0)))
    wave, quiet = mix(clip), mix(dataclasses.replace(clip, background_level=-80.0))
    assert np.abs(wave).max() == pytest.approx(soundscapes.PEAK, rel=1e-5)
    assert np.corrcoef(wave, quiet)[0, 1] == pytest.approx(1, abs=1e-6)


def test_a_clip_depends_on_its_key_alone():
    first, again, other = (composed(PAIR, key=key) for key in ((1, 2), (1, 2), (1, 3)))
    np.testing.assert_array_equal(mix(first), mix(again))
    assert not np.array_equal(mix(first), mix(other))


def test_ends_are_silent_40_db_under_the_loudest():
    steps = np.repeat(np.float32([1e-3, 0.05, 1, 0.05, 1e-3]), RATE // 10)
    np.testing.assert_array_equal(trim(steps, RATE), steps[RATE // 10 : -RATE // 10])


def test_a_cut_holds_what_sounds_and_is_faded():
    rng = np.random.default_rng(0)
    wave = 0.02 * rng.standard_normal(4 * RATE).astype(np.float32)  # a tail 34 dB down
    wave[:RATE] *= 50
    for _ in range(20):
        piece = cut(wave, RATE // 2, RATE, rng)
        assert len(piece) <= RATE // 2 and db(piece) > -7
        assert abs(piece[0]) < 0.1 and abs(piece[-1]) < 0.1
    short = cut(wave[:1000], RATE, RATE, rng)
    assert len(short) == 1000  # no longer than there is
    np.testing.assert_array_equal(short[80:-80], wave[80:920])


def test_a_loop_goes_round_without_a_gap():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(RATE).astype(np.float32)
    looped = loop(noise, 5 * RATE, RATE // 4, rng)
    period = RATE - RATE // 4
    assert looped.shape == (5 * RATE,)
    np.testing.assert_array_equal(looped[:period], looped[period : 2 * period])
    energies = np.mean(looped.reshape(-1, 500) ** 2, axis=1)
    assert energies.min() > 0.6 and energies.max() < 1.5
    # Slow enough that a seam would be a jump: no step is larger than the slope allows.
    slow = np.sin(np.linspace(0, 5, RATE, dtype=np.float32))
    assert np.abs(np.diff(loop(slow, 3 * RATE, RATE // 4, rng))).max() < 0.002
    assert len(loop(noise[:1], 100, 50, rng)) == 100


@pytest.mark.parametrize(
    "rows, reason",
    [
        ("b.wav,b,1,x\na.wav,a,2,x\n", r"line 3: source 'x' is in fold 2 here and in 1 before"),
        ("b.wav,,1,x\n", r"line 2: the field 'label' is empty"),
        ("", "no rows"),
        (None, "meta.csv can't be read: No such file.*; give a copy of ESC-50"),
    ],
)
def test_a_table_of_recordings(tmp_path, rows, reason):
    header, meta = "filename,label,fold,source\n", tmp_path / "meta.csv"
    meta.write_text(header + "b.wav,b,1,y\na.wav,a,1,x\n")
    assert [(r.name, r.label, r.fold, r.source, r.licence) for r in read_meta(tmp_path)] == [
        ("b.wav", "b", "1", "y", ""),
        ("a.wav", "a", "1", "x", ""),
    ]
    meta.write_text("filename,label,fold,source,License\na.wav,a,1,x,CC0\n")
    assert [recording.licence for recording in read_meta(tmp_path)] == ["CC0"]
    meta.unlink() if rows is None else meta.write_text(header + rows)
    with pytest.raises(InputError, match=reason):
        read_meta(tmp_path)
