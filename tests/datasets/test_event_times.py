"""Tables of when events sound, and the labels of frames made of them."""

import dataclasses

import numpy as np
import pytest
from made_configs import synthetic as synthetic_config

from configs import ergl_dynamic
from ergl_jax import audio
from ergl_jax.audio.segments import segment
from ergl_jax.datasets import builder, sources, synthetic
from ergl_jax.datasets.event_times import TOLERANCE, activity, annotate
from ergl_jax.datasets.manifest import Clip, Corpus, Interval
from ergl_jax.errors import InputError

RATE, EVENTS = 16000, ("Dog", "Rain")
FRONT_END = audio.get_front_end("panns_16k")
SOUNDS = (Interval(0, 0.1, 0.25), Interval(0, 0.2, 0.4), Interval(1, 0.5, 0.7001))
HEAD = "clip,onset,offset,event\n"


def corpus(names=("a.wav", "sub/b.wav")):
    clips = [Clip(name, 0, "train", name, np.zeros(2), pytest.fail) for name in names]
    return Corpus("toy", ("bus",), EVENTS, clips, "", "00")


def mask(sounds, event, samples):
    """Which samples of a recording have the event."""
    on = np.zeros(samples, np.float32)
    for sound in sounds:
        if sound.event == event:
            on[round(sound.onset * RATE) : round(sound.offset * RATE)] = 1
    return on


@pytest.mark.parametrize("front_end", ["panns_16k", "kong", "dcase2018"])
@pytest.mark.parametrize("pad", ["zero", "repeat"])
@pytest.mark.parametrize("long", ["crop", "windows"])
@pytest.mark.parametrize("samples", [11205, 12000, 20000, 40001])
def test_activity_is_cut_and_filled_as_the_waveform(samples, long, pad, front_end):
    """A brute force: the mask as a waveform, each of its samples in the frame of nearest centre."""
    front_end, length = dataclasses.replace(audio.get_front_end(front_end), sample_rate=RATE), 12000
    clip = dataclasses.replace(corpus().clips[0], sounds=SOUNDS)
    frames = front_end.num_frames(length / RATE)
    first = front_end.n_fft // 2 if front_end.frames == "inside" else 0
    frame = (np.arange(length) - first + front_end.hop // 2) // front_end.hop  # of each sample
    for event in range(2):
        windows = segment(mask(SOUNDS, event, samples), length, pad=pad, long=long)
        for start, window in windows:
            found = activity(
                clip, 2, front_end, start=start, recorded=samples, length=length, pad=pad
            )
            assert found.shape == (frames, 2) and found.dtype == np.float32
            want = [window[frame == t].mean() for t in range(frames)]
            np.testing.assert_allclose(found[:, event], want, atol=1e-6)


def test_frames_of_activity_are_those_of_the_sound():
    """A tone in silence: the frames of half its amplitude or more are those it half fills."""
    samples, (onset, offset) = 16000, (0.3123, 0.6789)
    tone = np.sin(2 * np.pi * 1000 * np.arange(samples) / RATE).astype(np.float32)
    tone *= mask([Interval(0, onset, offset)], 0, samples)
    band = np.asarray(audio.log_mel(tone[None], FRONT_END))[0].max(axis=1)  # dB
    clip = dataclasses.replace(corpus().clips[0], sounds=(Interval(0, onset, offset),))
    found = activity(clip, 2, FRONT_END, start=0, recorded=samples, length=samples, pad="zero")
    np.testing.assert_array_equal(band > band.max() - 6.02, found[:, 0] > 0.5)


def test_times_of_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = "onset;file;event_label;offset;note\n0,5;./a.wav;Dog;1,25;x\n0;sub\\b.wav;Rain;2;\n"
    (tmp_path / "times.csv").write_text(table + f"1;{tmp_path}/a.wav;Rain;1.5;\n")
    silent = corpus(("a.wav", "sub/b.wav", "c.wav"))
    found = annotate(silent, "times.csv", "my.csv")
    times = [[sound[:3] for sound in clip.sounds] for clip in found.clips]
    assert times == [[(0, 0.5, 1.25), (1, 1.0, 1.5)], [(1, 0.0, 2.0)], []]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("clip,onset,event\na.wav,0,Dog\n", "times.csv, line 1.*'offset'.*docs/data.md"),
        (HEAD + "a.wav,0,1,Dog\nc.wav,0,1,Dog\n", "line 3: clip 'c.wav' is not in .*my.csv"),
        (HEAD + "a.wav,0,1,Cat\n", "line 2: .*no event 'Cat'.* Dog, Rain$"),
        *(
            (HEAD + f"a.wav,{onset},{offset},Dog\n", f"line 2: onset='{onset}'.*seconds")
            for onset, offset in (("1", "1"), ("2", "1"), ("-1", "1"), ("x", "1"), ("0", "nan"))
        ),
        (HEAD + "a.wav,0,inf,Dog\n", "line 2: .*offset='inf'"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, text, words):
    (tmp_path / "times.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        annotate(corpus(), tmp_path / "times.csv", tmp_path / "my.csv")


def test_an_event_in_another_unicode_form_is_the_same(tmp_path):
    (tmp_path / "times.csv").write_text(HEAD + "a.wav,0,1,Ge\u0301ant\n", encoding="utf-8")
    named = dataclasses.replace(corpus(), events=("G\u00e9ant", "Rain"))
    found = annotate(named, tmp_path / "times.csv", tmp_path / "my.csv")
    assert [[sound.event for sound in clip.sounds] for clip in found.clips] == [[0], []]


def test_times_that_contradict_probabilities_are_warned_of(tmp_path, capfd):
    (tmp_path / "times.csv").write_text(HEAD + "a.wav,0,1,Dog\nsub/b.wav,0,1,Rain\n")

    def warning(*probabilities):
        clips = [
            dataclasses.replace(clip, events=np.array(events, np.float32))
            for clip, events in zip(corpus().clips, probabilities, strict=True)
        ]
        told = dataclasses.replace(corpus(), clips=clips)
        annotate(told, tmp_path / "times.csv", tmp_path / "my.csv")
        return capfd.readouterr().err

    assert warning([1, 0], [0, 1]) == warning([0.1, 0.9], [0.9, 0.1]) == ""
    line = warning([0, 0], [0, 1])
    assert "number of clips: 1; for example, in a.wav 'Dog' has times but probability 0" in line
    line = warning([1, 1], [0, 0])
    assert "number of clips: 2; for example, in a.wav 'Rain' has probability 1 but no times" in line


def test_of_many_events_some_are_named(tmp_path):
    (tmp_path / "times.csv").write_text(HEAD + "a.wav,0,1,Cat\n")
    many = dataclasses.replace(corpus(), events=tuple(f"event {n}" for n in range(527)))
    with pytest.raises(InputError, match=r"no event 'Cat'; it has event 0, .*, event 19, \.\.\.$"):
        annotate(many, tmp_path / "times.csv", tmp_path / "my.csv")


def prepare(corpus, directory, **settings):
    settings = dict(front_end=FRONT_END, clip_seconds=0.75, pad="zero", long="crop") | settings
    return builder.prepare(corpus, data_dir=directory, **settings)


def test_the_dataset_has_the_activity_of_its_rows(tmp_path):
    def load(rate, channel, notes):
        return np.random.default_rng(0).uniform(-0.3, 0.3, 20000).astype(np.float32)

    plain = corpus()
    clips = [dataclasses.replace(clip, load=load) for clip in plain.clips]
    clips[0] = dataclasses.replace(clips[0], sounds=SOUNDS)
    clips[1] = dataclasses.replace(clips[1], sounds=())
    dataset = prepare(dataclasses.replace(plain, clips=clips), tmp_path, long="windows")
    arrays = dataset.split("train").arrays()
    assert arrays["name"] == ["a.wav#0", "a.wav#1", "sub/b.wav#0", "sub/b.wav#1"]
    for row, start in enumerate((0, 8000)):
        want = activity(
            clips[0], 2, FRONT_END, start=start, recorded=20000, length=12000, pad="zero"
        )
        np.testing.assert_array_equal(arrays["activity"][row], want)
    assert not arrays["activity"][2:].any() and arrays["activity"][:2].any()
    later = dataclasses.replace(clips[0], sounds=(*SOUNDS[:2], Interval(1, 0.5, 0.8)))
    others = [clips, [later, clips[1]], [dataclasses.replace(c, sounds=None) for c in clips]]
    settings = (FRONT_END, 0.75, "zero", "windows")
    prints = {
        builder._fingerprint(dataclasses.replace(plain, clips=each), *settings) for each in others
    }
    assert len(prints) == 3 and dataset.fingerprint in prints


def test_a_sound_after_the_end_leaves_its_clip_out(tmp_path, capfd):
    def load(rate, channel, notes):
        return np.full(12000, 0.1, np.float32)

    def with_end(clip, offset):
        sounds = (Interval(0, 0.1, offset, "times.csv, line 7"),)
        return dataclasses.replace(clip, load=load, sounds=sounds)

    good, bad = corpus().clips
    clips = [with_end(good, 0.75 + 0.9 * TOLERANCE), with_end(bad, 0.75 + 1.1 * TOLERANCE)]
    dataset = prepare(dataclasses.replace(corpus(), clips=clips), tmp_path)
    ((name, reason),) = dataset.failures
    assert name == "sub/b.wav" and "times.csv, line 7: offset=0.86" in reason
    assert "sub/b.wav, which has 0.750 s: correct the row" in reason
    capfd.readouterr()


@pytest.mark.parametrize("source", ["synthetic", "delays"])
def test_synthetic_activity_has_the_shares_of_the_clip(source):
    settings = dict(seed=0, train_clips_per_scene=1, test_clips_per_scene=1, clip_seconds=10.0)
    for clip in synthetic.corpus(source, **settings, times=True).clips:
        found = activity(clip, 14, FRONT_END, start=0, recorded=160000, length=160000, pad="zero")
        weights = np.full(1001, 160)
        weights[[0, -1]] = 80  # half of these frames' samples are outside the clip
        np.testing.assert_allclose(weights @ found / 160000, clip.events, atol=1e-3)


def test_times_are_asked_for_by_the_configuration():
    config = synthetic_config(ergl_dynamic)
    assert all(clip.sounds is None for clip in sources.corpus(config.data).clips)
    fields = {"data.annotations": "truth", "train.loss": "frames"}
    assert all(clip.sounds for clip in sources.corpus(config.replace(**fields).data).clips)
    for wrong, words in (
        ({"train.loss": "frames"}, "config.train.loss=.*data.annotations=PATH.csv"),
        ({"data.annotations": "truth"}, "config.data.annotations=.*'frames', not 'events'"),
        (fields | {"data.annotations": "my.csv"}, "config.data.annotations='my.csv'.*truth"),
        (fields | {"data.source": "tut2018"}, "config.data.annotations"),
        (fields | {"data.front_end": "mltf"}, "config.data.front_end='mltf'"),
        (fields | {"model.name": "cnn", "model.variant": ""}, "config.train.loss='frames'"),
    ):
        with pytest.raises(InputError, match=words):
            config.replace(**wrong)
