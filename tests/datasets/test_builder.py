"""The builder: features on disk are those of the recordings, complete or absent."""

import contextlib
import csv
import dataclasses
import json
import sys

import numpy as np
import pytest

from ergl_jax import audio
from ergl_jax.datasets import builder
from ergl_jax.datasets.manifest import Clip, Corpus
from ergl_jax.errors import InputError

FRONT_END = audio.get_front_end("panns_16k")
SECONDS = 0.25  # 4000 samples, 26 frames
EVENTS = ("Speech", "Dog")


def waveform(i, samples=4000):
    return np.random.default_rng(i).uniform(-0.3, 0.3, samples).astype(np.float32)


def make_clip(i, split="train", samples=4000, error=None, log=None):
    def load(rate, channel, notes):
        assert rate == FRONT_END.sample_rate
        if log is not None:
            log.append(i)
        if error:
            raise error
        return waveform(i, samples)

    return Clip(f"c{i}.wav", i % 2, split, f"g{i // 2}", np.float32([i / 100, 0.5]), load)


def make_corpus(clips, **changes):
    corpus = Corpus("toy", ("bus", "tram"), EVENTS, clips, "CC0", "00")
    return dataclasses.replace(corpus, **changes)


def prepare(corpus, data_dir, **changes):
    settings = dict(front_end=FRONT_END, clip_seconds=SECONDS, pad="zero", long="crop")
    return builder.prepare(corpus, data_dir=data_dir, **settings | changes)


def log_mel_of(wave):
    return np.asarray(audio.log_mel(wave[None], FRONT_END))[0]


def test_rows_are_the_log_mels_and_labels_in_order(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(builder, "ROWS_PER_SHARD", 2)  # more than ten shards
    clips = [make_clip(i, "train" if i < 25 else "test") for i in range(30)]
    dataset = prepare(make_corpus(clips), tmp_path)
    output = capfd.readouterr()
    assert output.out == "" and "WARNING" not in output.err and "features" in output.err
    assert dataset.sizes == {"train": 25, "test": 5}
    assert dataset.class_sizes == {"train": [13, 12], "test": [2, 3]}
    assert (dataset.scenes, dataset.events) == (("bus", "tram"), EVENTS)
    assert (dataset.name, dataset.licence, dataset.failures) == ("toy", "CC0", [])
    assert (dataset.front_end, dataset.clip_seconds, dataset.pad) == (FRONT_END, SECONDS, "zero")
    assert "tensorflow" not in sys.modules and builder.load(dataset.path) == dataset

    arrays = dataset.split("train").arrays()
    assert arrays["log_mel"].shape == (25, FRONT_END.num_frames(SECONDS), FRONT_END.n_mels)
    assert arrays["log_mel"].dtype == arrays["events"].dtype == np.float32
    assert arrays["scene"].dtype == np.int32
    assert arrays["name"] == [f"c{i}.wav" for i in range(25)]
    assert arrays["group"] == [f"g{i // 2}" for i in range(25)]
    for i in range(25):
        np.testing.assert_allclose(arrays["log_mel"][i], log_mel_of(waveform(i)), atol=1e-4)
        assert arrays["scene"][i] == i % 2
        np.testing.assert_array_equal(arrays["events"][i], np.float32([i / 100, 0.5]))
    row = dataset.split("test")[3]
    assert (row["name"], row["group"], row["scene"]) == ("c28.wav", "g14", 0)
    with pytest.raises(IndexError):
        dataset.split("test")[5]
    with pytest.raises(InputError, match="'validation'.*train, test"):
        dataset.split("validation")


def test_the_same_is_reused_and_any_change_rebuilds(tmp_path):
    log = []
    clips = [make_clip(i, log=log) for i in range(3)]
    corpus = make_corpus(clips)
    first = prepare(corpus, tmp_path)
    assert sorted(log) == [0, 1, 2]
    assert prepare(corpus, tmp_path) == first and len(log) == 3

    renamed = prepare(make_corpus(clips, name="other", licence="CC BY"), tmp_path)
    assert (renamed.path, renamed.name, renamed.licence) == (first.path, "other", "CC BY")
    assert len(log) == 3

    def with_clip(**changes):
        return make_corpus([dataclasses.replace(clips[0], **changes), *clips[1:]])

    others = [
        make_corpus(clips, fingerprint="01"),
        make_corpus(clips, scenes=("bus", "metro")),
        make_corpus(clips, events=("Speech", "Cat")),
        with_clip(name="new.wav"),
        with_clip(scene=1),
        with_clip(split="test"),
        with_clip(group="elsewhere"),
        with_clip(events=np.float32([0, 0.25])),
    ]
    settings = (FRONT_END, SECONDS, "zero", "crop")
    prints = {builder._fingerprint(each, *settings) for each in (corpus, *others)}
    for i, change in enumerate(
        (dataclasses.replace(FRONT_END, fmax=7000.0), 0.2, "repeat", "windows")
    ):
        changed = [*settings[:i], change, *settings[i + 1 :]]
        prints.add(builder._fingerprint(corpus, *changed))
    assert len(prints) == 13 and first.fingerprint in prints
    assert prepare(others[0], tmp_path).path != first.path and len(log) == 6


def test_old_datasets_without_their_padding_open(tmp_path):
    corpus = make_corpus([make_clip(0)])
    dataset = prepare(corpus, tmp_path, pad="repeat")
    (metadata,) = dataset.path.glob("metadata.json")
    older = json.loads(metadata.read_text())
    assert older.pop("pad") == "repeat"
    metadata.write_text(json.dumps(older))
    assert builder.load(dataset.path).pad == "unknown"
    assert prepare(corpus, tmp_path, pad="repeat") == dataset


def test_short_and_long_recordings(tmp_path):
    clips = [make_clip(0, samples=9000), make_clip(1, samples=1500), make_clip(2)]
    cropped = prepare(make_corpus(clips), tmp_path).split("train").arrays()
    assert cropped["name"] == ["c0.wav", "c1.wav", "c2.wav"]
    centre, short = waveform(0, 9000)[2500:6500], waveform(1, 1500)
    np.testing.assert_allclose(cropped["log_mel"][0], log_mel_of(centre), atol=1e-4)
    filled = np.concatenate([short, np.zeros(2500, np.float32)])
    np.testing.assert_allclose(cropped["log_mel"][1], log_mel_of(filled), atol=1e-4)

    changes = dict(long="windows", pad="repeat")
    cut = prepare(make_corpus(clips), tmp_path, **changes).split("train").arrays()
    assert cut["name"] == ["c0.wav#0", "c0.wav#1", "c0.wav#2", "c1.wav", "c2.wav"]
    assert cut["group"] == ["g0", "g0", "g0", "g0", "g1"]
    np.testing.assert_array_equal(cut["scene"], [0, 0, 0, 1, 0])
    last = waveform(0, 9000)[5000:]
    np.testing.assert_allclose(cut["log_mel"][2], log_mel_of(last), atol=1e-4)
    filled = np.concatenate([short, short, short[:1000]])
    np.testing.assert_allclose(cut["log_mel"][3], log_mel_of(filled), atol=1e-4)


def test_clips_that_cannot_be_decoded_are_listed_and_left_out(tmp_path, capfd):
    bad = make_clip(1, error=InputError('c1.wav: can\'t be decoded: "bad", header'))
    corpus = make_corpus([make_clip(0), bad, make_clip(2)])
    expected = [("c1.wav", 'c1.wav: can\'t be decoded: "bad", header')]
    for attempt in range(2):  # built, then reused
        dataset = prepare(corpus, tmp_path)
        assert dataset.failures == expected and dataset.sizes == {"train": 2}
        assert dataset.split("train").arrays()["name"] == ["c0.wav", "c2.wav"]
        err = capfd.readouterr().err
        assert "1 of 3 clips" in err and str(dataset.path / "failures.csv") in err
        assert (expected[0][1] in err) == (attempt == 0)
    with open(dataset.path / "failures.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["name", "reason"], list(expected[0])]
    with pytest.raises(InputError, match="c1.wav.*delete"):
        prepare(corpus, tmp_path, strict=True)
    with pytest.raises(InputError, match="c1.wav: can't be decoded"):
        prepare(corpus, tmp_path / "new", strict=True)
    assert not list((tmp_path / "new").rglob("*.array_record*"))


def test_notes_are_printed_listed_and_found_again(tmp_path, capfd):
    def noted(i):
        def load(rate, channel, notes):
            notes.append(f"unusual {i}")
            return waveform(i)

        return dataclasses.replace(make_clip(i), load=load)

    corpus = make_corpus([make_clip(9), *(noted(i) for i in range(8))])
    expected = [(f"c{i}.wav", f"unusual {i}") for i in range(8)]
    for attempt in range(2):  # built, then reused
        dataset = prepare(corpus, tmp_path)
        assert dataset.notes == expected and dataset.failures == []
        err = capfd.readouterr().err
        assert f"8 notes on recordings: {dataset.path / 'notes.csv'}" in err
        assert err.count("note: ") == (0 if attempt else 5)
    assert prepare(make_corpus([make_clip(9)]), tmp_path).notes == []
    (dataset.path / "notes.csv").unlink()  # as in a dataset of an older version
    assert builder.load(dataset.path).notes == []


def test_recordings_that_are_cropped_are_counted(tmp_path, capfd):
    corpus = make_corpus([make_clip(0), make_clip(1, samples=4020), make_clip(2, samples=16000)])
    said = "1 of 3 recordings are longer than a clip (up to 1.0 s): only the middle 0.25 s of each"
    for long in ("crop", "windows"):
        prepare(corpus, tmp_path, long=long)
        assert (said in capfd.readouterr().err) == (long == "crop")


def test_a_split_that_loses_every_clip_is_an_error(tmp_path, capfd):
    bad = make_clip(1, "test", error=InputError("c1.wav: holds no samples"))
    with pytest.raises(InputError, match="none of the 1 test clips .* c1.wav: holds no samples"):
        prepare(make_corpus([make_clip(0), bad]), tmp_path)
    assert not list(tmp_path.rglob("dataset_info.json"))
    capfd.readouterr()


def test_nothing_to_prepare_and_nothing_to_load(tmp_path):
    with pytest.raises(InputError, match="clip_seconds is 0"):
        prepare(make_corpus([make_clip(0)]), tmp_path, clip_seconds=0)
    path = prepare(make_corpus([make_clip(0)]), tmp_path).path
    (path / builder.FAILURES).unlink()  # written last
    for incomplete in (path, tmp_path):
        with pytest.raises(InputError, match="not a prepared dataset"):
            builder.load(incomplete)


def test_an_error_in_the_middle_leaves_nothing(tmp_path, capfd):
    clips = [make_clip(i) for i in range(40)] + [make_clip(40, error=KeyError("a bug"))]
    with pytest.raises(KeyError):
        prepare(make_corpus(clips), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    capfd.readouterr()


def test_two_that_build_the_same_at_once_both_get_it(tmp_path, monkeypatch):
    """Without a lock, which makes others wait (test_two_at_once.py)."""
    monkeypatch.setattr(builder.locks, "hold", lambda *_, **__: contextlib.nullcontext())
    clips = [make_clip(0), make_clip(1)]
    other = []

    def load(rate, channel, notes):  # another process is done while this one is still at work
        other.append(prepare(make_corpus(clips), tmp_path))
        return waveform(0)

    slow = dataclasses.replace(clips[0], load=load)
    dataset = prepare(make_corpus([slow, clips[1]]), tmp_path)
    assert other == [dataset] and dataset.sizes == {"train": 2}
    assert not list(tmp_path.rglob("*incomplete*"))


def test_front_ends_of_before_keep_their_directories():
    """Directory names of version 0.1.0, when front ends had eight fields."""
    clips = [dataclasses.replace(make_clip(i), load=None) for i in range(3)]
    for name, start in (("paper", "6e8a01335a2d1a90"), ("panns_16k", "339f2e3541556d96")):
        front_end = audio.get_front_end(name)
        found = builder._fingerprint(make_corpus(clips), front_end, 0.25, "zero", "crop")
        assert found.startswith(start)
