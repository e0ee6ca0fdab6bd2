"""Manifests: what is read, and the one line that a wrong one earns."""

import os

import numpy as np
import pytest
import soundfile

from ergl_jax.datasets import tut2018
from ergl_jax.datasets.manifest import Recording, read_manifest, read_recordings
from ergl_jax.errors import InputError
from ergl_jax.labels import AUDIOSET

GOOD = "file,scene,split\na.wav,tram,train\nb.wav,bus,test\n"


@pytest.fixture
def write(tmp_path):
    def write(text, name="my.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return write


def error_of(path, **kwargs):
    with pytest.raises(InputError) as caught:
        read_manifest(path, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_reads_rows_scenes_groups_and_event_columns(write, tmp_path):
    path = write(
        "file,scene,split,group,event:Speech,event:Car, passing by,note\n".replace(
            "event:Car, passing by", '"event:Car, passing by"'
        )
        + "a.wav,tram,train,g1,0.25,1,x\n"
        + f"{tmp_path}/sub/b.wav,bus,test,,0,1e-1,\n"
        + "c.wav,metro,validation,g3,0.5,0.75,\n"
    )
    corpus = read_manifest(path, licence="CC0")
    assert corpus.name == "my" and corpus.licence == "CC0"
    assert corpus.scenes == ("bus", "metro", "tram")
    assert corpus.events == ("Speech", "Car, passing by")
    assert [clip.name for clip in corpus.clips] == ["a.wav", f"{tmp_path}/sub/b.wav", "c.wav"]
    assert [clip.scene for clip in corpus.clips] == [2, 0, 1]
    assert [clip.split for clip in corpus.clips] == ["train", "test", "validation"]
    assert [clip.group for clip in corpus.clips] == ["g1", f"{tmp_path}/sub/b.wav", "g3"]
    expected = np.float32([[0.25, 1], [0, 0.1], [0.5, 0.75]])
    np.testing.assert_array_equal([clip.events for clip in corpus.clips], expected)
    assert corpus.clips[0].events.dtype == np.float32


def test_bom_crlf_white_space_and_blank_lines_change_nothing(write):
    plain = read_manifest(write(GOOD))
    spaced = GOOD.replace(",", " , ").replace("\n", " \r\n\r\n , , \r\n")
    messy = read_manifest(write(spaced, encoding="utf-8-sig"))
    for clip, same in zip(plain.clips, messy.clips, strict=True):
        assert (clip.name, clip.scene, clip.split, clip.group) == (
            *(same.name, same.scene, same.split, same.group),
        )
    assert plain.scenes == messy.scenes and plain.fingerprint == messy.fingerprint


def test_loads_beside_the_manifest_at_the_asked_rate(write, tmp_path):
    (tmp_path / "audio").mkdir()
    tone = 0.1 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    soundfile.write(tmp_path / "audio" / "a.wav", np.stack([tone, tone], axis=1), 8000)
    corpus = read_manifest(write("file,scene,split\naudio/a.wav,tram,test\n"))
    waveform = corpus.clips[0].load(16000)
    assert waveform.shape == (16000,) and waveform.dtype == np.float32


def test_a_missing_recording_is_no_manifest_error_but_fails_to_load(write):
    clip = read_manifest(write(GOOD)).clips[0]
    with pytest.raises(InputError, match="a.wav"):
        clip.load(16000)


def test_fingerprint_follows_the_recordings(write, tmp_path):
    path = write(GOOD)
    missing = read_manifest(path).fingerprint
    (tmp_path / "a.wav").write_bytes(b"1234")
    os.utime(tmp_path / "a.wav", ns=(0, 10**9))
    present = read_manifest(path).fingerprint
    assert present == read_manifest(path).fingerprint != missing
    os.utime(tmp_path / "a.wav", ns=(0, 2 * 10**9))
    touched = read_manifest(path).fingerprint
    (tmp_path / "a.wav").write_bytes(b"12345")
    os.utime(tmp_path / "a.wav", ns=(0, 10**9))
    longer = read_manifest(path).fingerprint
    assert len({missing, present, touched, longer}) == 4


def test_recordings_alone_need_neither_split_nor_events(write, tmp_path):
    path = write("file,scene,fold,event:Speech\nb.wav,tram,1,high\na.wav,bus,,2\n")
    (tmp_path / "a.wav").write_bytes(b"1234")
    os.utime(tmp_path / "a.wav", ns=(0, 10**9))
    assert read_recordings(path) == [
        Recording("b.wav", tmp_path / "b.wav", None),
        Recording("a.wav", tmp_path / "a.wav", [4, 10**9]),
    ]
    with pytest.raises(InputError, match="no column 'scene'"):
        read_recordings(write("file\na.wav\n"))


def test_folds(write):
    path = write("file,scene,fold\na,x,1\nb,x,2\nc,x,3\nd,x,4\n")
    corpus = read_manifest(path, test_folds=[4], validation_folds=["3"])
    assert [clip.split for clip in corpus.clips] == ["train", "train", "validation", "test"]
    assert "test_folds" in error_of(path)
    assert "'9'" in error_of(path, test_folds=[9]) and "1, 2, 3, 4" in error_of(
        path, test_folds=[9]
    )
    assert "'4'" in error_of(path, test_folds=[4], validation_folds=[4])
    assert "'fold'" in error_of(write(GOOD), test_folds=[1])


def test_folds_win_over_split_when_they_are_named(write):
    path = write("file,scene,split,fold\na,x,test,1\nb,x,train,2\n")
    assert [c.split for c in read_manifest(path).clips] == ["test", "train"]
    assert [c.split for c in read_manifest(path, test_folds=[2]).clips] == ["train", "test"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["empty"]),
        (" \n,,\n", ["empty"]),
        ("file,scene,split\n", ["no rows"]),
        ("scene,split\ntram,train\n", ["line 1", "'file'", "scene, split"]),
        ("file,split\na,train\n", ["line 1", "'scene'"]),
        ("file;scene;split\na;tram;train\n", ["line 1", "'file'", "file;scene;split"]),
        ("file,scene\na,tram\n", ["line 1", "'split'"]),
        ("file,scene,scene,split\na,tram,tram,train\n", ["line 1", "'scene'", "twice"]),
        (GOOD + "c.wav,tram,dev\n", ["line 4", "'dev'", "train, validation, test"]),
        (GOOD + "c.wav,,train\n", ["line 4", "'scene'", "empty"]),
        (GOOD + ",tram,train\n", ["line 4", "'file'", "empty"]),
        (GOOD + "c.wav,tram\n", ["line 4", "2 fields", "3"]),
        (GOOD + "./a.wav,tram,train\n", ["line 4", "'./a.wav'", "line 2"]),
        (GOOD + '"c.wav,tram,train\n', ["line 4", "CSV"]),
        ("file,scene,split,group\na,x,train,g\nb,x,test,g\n", ["line 3", "'g'", "train", "line 2"]),
        ("file,scene,split,group\na,x,train,g\nb,x,validation,g\n", ["line 3", "'g'"]),
        ("file,scene,split,event:Dog\na,x,train,1.5\n", ["line 2", "event:Dog", "'1.5'"]),
        ("file,scene,split,event:Dog\na,x,train,-0.1\n", ["line 2", "event:Dog", "'-0.1'"]),
        ("file,scene,split,event:Dog\na,x,train,nan\n", ["line 2", "event:Dog", "'nan'"]),
        ("file,scene,split,event:Dog\na,x,train,\n", ["line 2", "event:Dog", "''"]),
        ("file,scene,split,event:Dog\na,x,train,yes\n", ["line 2", "event:Dog", "'yes'"]),
        ("file,scene,split,event:\na,x,train,1\n", ["line 1", "event:"]),
    ],
)
def test_what_is_wrong_is_named(write, text, parts):
    path = write(text)
    message = error_of(path)
    for part in [str(path), *parts]:
        assert part in message


def test_unreadable_manifests(write, tmp_path):
    assert "nowhere.csv" in error_of(tmp_path / "nowhere.csv")
    assert str(tmp_path) in error_of(tmp_path)
    assert "UTF-8" in error_of(write(GOOD.replace("tram", "caf\u00e9"), encoding="latin-1"))


def test_only_test_rows_and_no_events_are_fine(write):
    corpus = read_manifest(write("file,scene,split\na,x,test\n"))
    assert corpus.events == () and corpus.clips[0].events.shape == (0,)


EVENTS = dict(
    clip=np.array(["b", "a", "other"]),
    events=np.array(["Speech", "Dog"]),
    probabilities=np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]),
)


@pytest.mark.parametrize(
    ("file", "entry"),
    [
        ("{}.wav", "{}"),
        ("{}.wav", "{}.wav"),
        ("deep/{}.wav", "{}"),
        ("deep/{}.wav", "{}.wav"),
        ("deep/{}.wav", "deep/{}"),
        ("deep/{}.wav", "deep/{}.wav"),
    ],
)
def test_events_beside_the_manifest(write, tmp_path, file, entry):
    path = write(f"file,scene,split\n{file.format('a')},x,train\n{file.format('b')},x,test\n")
    np.savez(
        tmp_path / "my.events.npz",
        **EVENTS | {"clip": np.array([entry.format(name) for name in EVENTS["clip"]])},
    )
    corpus = read_manifest(path)
    assert corpus.events == ("Speech", "Dog")
    expected = np.float32([[0.3, 0.4], [0.1, 0.2]])
    np.testing.assert_array_equal([clip.events for clip in corpus.clips], expected)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (dict(clip=np.array(["b", "x", "y"])), ["line 2", "'a'"]),
        (dict(clip=np.array(["b", "a", "a"])), ["'clip'", "'a'", "twice"]),
        (dict(events=np.array(["Dog", "Dog"])), ["'events'", "'Dog'", "twice"]),
        (dict(probabilities=np.full((3, 2), 1.5)), ["'probabilities'", "'b'", "'Speech'", "1.5"]),
        (dict(probabilities=np.full((3, 2), np.nan)), ["'probabilities'", "nan"]),
        (dict(probabilities=np.zeros((2, 3))), ["'probabilities'", "(2, 3)", "3 clips, 2 events"]),
        (dict(probabilities=np.full((3, 2), "x")), ["'probabilities'", "<U1"]),
        (dict(probabilities=None), ["no array 'probabilities'", "clip, events"]),
    ],
)
def test_what_is_wrong_with_an_events_file_is_named(write, tmp_path, change, parts):
    arrays = {key: value for key, value in (EVENTS | change).items() if value is not None}
    events_file = tmp_path / "e.npz"
    np.savez(events_file, **arrays)
    message = error_of(write(GOOD), events_file=events_file)
    for part in ["e.npz", *parts]:
        assert part in message


def test_broken_events_files(write, tmp_path):
    path = write(GOOD)
    assert "none.npz" in error_of(path, events_file=tmp_path / "none.npz")
    assert "plain arrays" in error_of(path, events_file=path)
    np.savez(tmp_path / "o.npz", **EVENTS | {"clip": np.array(["a", None], dtype=object)})
    assert "plain arrays" in error_of(path, events_file=tmp_path / "o.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    assert "plain arrays" in error_of(path, events_file=tmp_path / "one.npy")


def test_one_entry_cannot_label_two_recordings(write, tmp_path):
    path = write("file,scene,split\nx/a.wav,x,train\ny/a.wav,x,train\n")
    np.savez(tmp_path / "my.events.npz", **EVENTS)
    message = error_of(path)
    assert "line 3" in message and "line 2" in message and "'a'" in message


def test_events_from_two_places_are_refused(write, tmp_path):
    np.savez(tmp_path / "my.events.npz", **EVENTS)
    assert "keep one" in error_of(write("file,scene,split,event:Dog\na,x,train,1\n"))


def test_tags_of_audiosets_events(write, tmp_path):
    """As published with RGASC: 0 or 1 for each of the 527."""
    tags = np.random.default_rng(0).integers(0, 2, (3, 527)).astype(np.uint8)
    np.savez(tmp_path / "my.events.npz", clip=EVENTS["clip"], tags=tags)
    corpus = read_manifest(write(GOOD))
    assert corpus.events == AUDIOSET
    np.testing.assert_array_equal([clip.events for clip in corpus.clips], tags[[1, 0]])
    for wrong, part in ((tags[:, 1:], "(3 clips, 527 events)"), (tags + 1, "'tags' of 'b'")):
        np.savez(tmp_path / "my.events.npz", clip=EVENTS["clip"], tags=wrong)
        message = error_of(write(GOOD))
        assert "'tags'" in message and part in message


def test_tut2018_is_its_manifest_and_says_on_one_screen_what_is_missing(write, tmp_path):
    with pytest.raises(InputError) as caught:
        tut2018.corpus(tmp_path)
    message = str(caught.value)
    assert len(message.splitlines()) < 24
    for part in (
        "21.4 GB",
        "6122",
        "2518",
        "non-commercial",
        "run.py --config=configs/ergl.py:synthetic",
    ):
        assert part in message
    manifest = tmp_path / "manifest.csv"
    assert f"prepare_dataset.py tut2018 --root={tmp_path}\n" in message
    assert f"--manifest={manifest} " in message
    assert f"--out={tmp_path / 'manifest.events.npz'}\n" in message

    write("file,scene,split,group\naudio/airport-barcelona-0-0-a.wav,airport,train,\n", manifest)
    corpus = tut2018.corpus(tmp_path)
    assert corpus.name == "tut2018" and "non-commercial" in corpus.licence
    # What prepare_dataset.py makes of the manifest is what training opens.
    assert corpus.fingerprint == read_manifest(manifest).fingerprint
    assert [clip.name for clip in corpus.clips] == ["audio/airport-barcelona-0-0-a.wav"]
