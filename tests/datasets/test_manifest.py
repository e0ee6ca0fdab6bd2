"""Manifests: what is read, and errors that name file, line and field."""

import os
import sys
import unicodedata

import numpy as np
import pytest
import soundfile

from ergl_jax.datasets import tut2018
from ergl_jax.datasets.manifest import Recording, read_manifest, read_recordings
from ergl_jax.errors import InputError
from ergl_jax.labels import AUDIOSET

GOOD = "file,scene,split\na.wav,tram,train\nb.wav,bus,test\n"
EVENTS = dict(
    clip=np.array(["b", "a", "other"]),
    events=np.array(["Speech", "Dog"]),
    probabilities=np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]),
)


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
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_scenes_groups_and_event_columns(write, tmp_path):
    path = write(
        'file,scene,split,group,event:Speech,"event:Car, passing by",note\n'
        "a.wav,tram,train,g1,0.25,1,x\n"
        f"{tmp_path}/sub/b.wav,bus,test,,0,1e-1,\n"
        "c.wav,metro,validation,g3,0.5,0.75,\n"
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


def test_bom_crlf_spaces_and_blank_lines_change_nothing(write):
    plain = read_manifest(write(GOOD))
    spaced = GOOD.replace(",", " , ").replace("\n", " \r\n\r\n , , \r\n")
    messy = read_manifest(write(spaced, encoding="utf-8-sig"))
    assert plain.scenes == messy.scenes and plain.fingerprint == messy.fingerprint
    for clip, same in zip(plain.clips, messy.clips, strict=True):
        assert (clip.name, clip.scene, clip.split) == (same.name, same.scene, same.split)
        assert clip.group == same.group and clip.events.shape == (0,)


def test_recordings_are_next_to_the_manifest_and_opened_late(write, tmp_path):
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "a.wav", np.full((8000, 2), 0.1), 8000)
    found, missing = read_manifest(write(GOOD.replace("a.wav", "audio/a.wav"))).clips
    assert found.load(16000).shape == (16000,) and found.load(16000).dtype == np.float32
    with pytest.raises(InputError, match="b.wav"):
        missing.load(16000)


def test_fingerprint_follows_the_recordings(write, tmp_path):
    path = write(GOOD)
    prints = [read_manifest(path).fingerprint]
    for content, seconds in ((b"1234", 1), (b"1234", 2), (b"12345", 1)):
        (tmp_path / "a.wav").write_bytes(content)
        os.utime(tmp_path / "a.wav", ns=(0, seconds * 10**9))
        prints.append(read_manifest(path).fingerprint)
        assert prints[-1] == read_manifest(path).fingerprint
    assert len(set(prints)) == 4


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
    assert "choose some of 1, 2, 3, 4 with data.test_folds" in error_of(path)
    assert "'9'; the folds are 1, 2, 3, 4" in error_of(path, test_folds=[9])
    assert "'4'" in error_of(path, test_folds=[4], validation_folds=[4])
    assert "'fold'" in error_of(write(GOOD), test_folds=[1])
    assert "'fold' is empty" in error_of(write("file,scene,fold\na,x,1\nb,x,\n"), test_folds=[1])
    path = write("file,scene,split,fold\na,x,test,1\nb,x,train,2\n")  # folds beat `split`
    assert [c.split for c in read_manifest(path).clips] == ["test", "train"]
    assert [c.split for c in read_manifest(path, test_folds=[2]).clips] == ["train", "test"]


def test_dcases_own_table(write, capfd):
    header = "filename\tscene_label\tidentifier\tsource_label\n"
    path = write(header + "audio/a.wav\tbus\tparis-1\ta\naudio/b.wav\ttram\tlyon-2\tb\n")
    assert [recording.name for recording in read_recordings(path)] == ["audio/a.wav", "audio/b.wav"]
    (line,) = capfd.readouterr().err.splitlines()
    assert "with tabs between fields" in line and "'filename' as the column 'file'" in line
    assert "no column 'split': add it" in error_of(path)
    rows = "audio/a.wav\tbus\tparis-1\ttrain\naudio/b.wav\ttram\tlyon-2\ttest\n"
    clips = read_manifest(write(header.replace("source_label", "split") + rows)).clips
    assert [clip.group for clip in clips] == ["paris-1", "lyon-2"]
    other = read_manifest(write("file,scene,split,identifier\na.wav,bus,train,7\n"))
    assert other.clips[0].group == "a.wav"  # no column of DCASE's here


@pytest.mark.parametrize("form", ["{0};{1}", '"{0}","{1}"', "{0}\t{1}"])
def test_decimal_commas(write, capfd, form):
    between = form[3] if form[0] == "{" else ","
    head = between.join(["file", "scene", "split", "event:Dog", "Event:Cat"])
    rows = [f"{name}.wav{between}x{between}train{between}" for name in "ab"]
    text = f"{head}\n{rows[0]}{form.format('0,25', '1')}\n{rows[1]}{form.format('0.5', '1,0')}\n"
    corpus = read_manifest(write(text))
    assert corpus.events == ("Dog", "Cat")
    np.testing.assert_array_equal([clip.events for clip in corpus.clips], [[0.25, 1], [0.5, 1]])
    assert "decimal commas, 0,5 as 0.5" in capfd.readouterr().err
    for wrong in ("1,5", "0,2,5", "0.2,5", "5 %"):
        assert f"event:Dog is {wrong!r}" in error_of(write(text.replace("0,25", wrong)))


def test_names_that_look_alike_are_warned_of(write, capfd):
    scenes = ["tram", "Tram", "metro station", "metro_station", "caf\u00e9", "cafe\u0301", "bus"]
    text = "".join(f"{i}.wav,{scene},train\n" for i, scene in enumerate(scenes))
    assert len(read_manifest(write("file,scene,split\n" + text)).scenes) == 6
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2 and all(
        "spell them alike if they are the same" in line for line in lines
    )
    assert "the scenes 'Tram' and 'tram'" in lines[1]
    read_manifest(write(GOOD))
    assert not capfd.readouterr().err


def test_columns_with_almost_a_known_name(write, capfd):
    text = "file,scene,split,gruop,notes,License\na.wav,tram,train,x,y,CC0\n"
    assert read_manifest(write(text)).licence == "CC0"
    group, licence = sorted(capfd.readouterr().err.splitlines(), key=len)[::-1]
    assert group.endswith("the column 'gruop' is not used: rename it if 'group' is meant")
    assert "with 'License' as the column 'licence'" in licence
    rows = "a.wav,tram,train,x,1\nb.wav,tram,test,y,0\n"
    read_manifest(write("file,scene,subset,by:licence,event:group\n" + rows), split="train")
    (line,) = capfd.readouterr().err.splitlines()
    assert "the column 'subset' is not used: rename it if 'split' is meant" in line
    read_manifest(write("file,scene,split,Events: Dog,segment:on\n" + "a.wav,tram,train,1,0\n"))
    (line,) = capfd.readouterr().err.splitlines()
    assert "the column 'Events: Dog' is not used: rename it if 'event:Dog' is meant" in line


def test_names_of_any_unicode_form_match(write):
    text = "file,scene,split,event:Cafe\u0301\na.wav,caf\u00e9,train,1\nb.wav,cafe\u0301,train,0\n"
    found = read_manifest(write(text))
    assert (found.scenes, found.events) == (("caf\u00e9",), ("Caf\u00e9",))


@pytest.mark.parametrize("file", ["{}.wav", "deep/{}.wav", "./{}.wav"])
@pytest.mark.parametrize("entry", ["{}", "{}.wav"])
def test_events_next_to_the_manifest(write, tmp_path, file, entry):
    path = write(f"file,scene,split\n{file.format('a')},x,train\n{file.format('b')},x,test\n")
    names = [entry.format(name) for name in EVENTS["clip"]]
    np.savez(tmp_path / "my.events.npz", **EVENTS | {"clip": names})
    corpus = read_manifest(path)
    assert corpus.events == ("Speech", "Dog")
    expected = np.float32([[0.3, 0.4], [0.1, 0.2]])
    np.testing.assert_array_equal([clip.events for clip in corpus.clips], expected)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "longdouble", "?", "u1"])
@pytest.mark.parametrize("names", ["U8", "S8"])
def test_any_type_of_number_and_text(write, tmp_path, dtype, names):
    """And an array that is not needed may hold anything."""
    values = np.array([[0, 1], [1, 0.25], [0.75, 0.5]]).astype(dtype)
    arrays = {key: EVENTS[key].astype(names) for key in ("clip", "events")}
    about = np.array([{"model": "mine"}], object)
    np.savez(tmp_path / "my.events.npz", **arrays, probabilities=np.asfortranarray(values), a=about)
    corpus = read_manifest(write(GOOD))
    assert corpus.events == ("Speech", "Dog")
    np.testing.assert_array_equal([clip.events for clip in corpus.clips], values[[1, 0]])
    assert corpus.clips[0].events.dtype == np.float32


def test_tags_of_audiosets_events(write, tmp_path):
    """As published with RGASC: 0 or 1 for each of the 527."""
    tags = np.random.default_rng(0).integers(0, 2, (3, 527)).astype(np.uint8)
    np.savez(tmp_path / "my.events.npz", clip=EVENTS["clip"], tags=tags)
    corpus = read_manifest(write(GOOD))
    assert corpus.events == AUDIOSET
    np.testing.assert_array_equal([clip.events for clip in corpus.clips], tags[[1, 0]])
    np.savez(tmp_path / "my.events.npz", clip=EVENTS["clip"], tags=tags[:, 1:])
    assert "'tags' is uint8 (3, 526): give numbers, (3 clips, 527" in error_of(write(GOOD))


def test_events_of_two_recordings_or_from_two_places_are_refused(write, tmp_path):
    np.savez(tmp_path / "my.events.npz", **EVENTS)
    message = error_of(write("file,scene,split\nx/a.wav,x,train\ny/a.wav,x,train\n"))
    assert "line 3" in message and "line 2" in message and "'a'" in message
    assert "keep one" in error_of(write("file,scene,split,event:Dog\na,x,train,1\n"))


def test_tut2018_is_its_manifest_and_shows_on_one_screen_what_is_missing(write, tmp_path):
    with pytest.raises(InputError) as caught:
        tut2018.corpus(tmp_path)
    message = str(caught.value)
    assert len(message.splitlines()) < 24
    for part in (
        *("21.4 GB", "6122", "2518", "non-commercial", "run.py --config=configs/ergl.py:synthetic"),
        f"prepare_dataset.py tut2018 --root={tmp_path}\n",
        f"--manifest={tmp_path / 'manifest.csv'} ",
        f"--out={tmp_path / 'manifest.events.npz'}\n",
    ):
        assert part in message

    manifest = write(GOOD, "manifest.csv")
    corpus = tut2018.corpus(tmp_path)
    assert corpus.name == "tut2018" and "non-commercial" in corpus.licence
    # prepare_dataset.py and training open the same dataset.
    assert corpus.fingerprint == read_manifest(manifest).fingerprint


@pytest.mark.skipif(sys.platform == "darwin", reason="its disks know no difference")
@pytest.mark.parametrize(("written", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_another_unicode_form_are_found(write, tmp_path, written, stored):
    name, other = "Café/Straßenlärm é.wav", "Café/plain.wav"
    kept = tmp_path / unicodedata.normalize(stored, name)
    kept.parent.mkdir()
    soundfile.write(kept, np.zeros(160), 16000)
    soundfile.write(kept.with_name("plain.wav"), np.zeros(160), 16000)
    asked = [unicodedata.normalize(written, each) for each in (name, other)]
    path = write("file,scene,split\n" + "".join(f"{each},bus,train\n" for each in asked))
    clips = read_manifest(path).clips
    assert [clip.name for clip in clips] == asked
    assert all(len(clip.load(16000, "mean")) == 160 for clip in clips)
    found = read_recordings(path)
    assert found[0].path == kept and found[0].state[0] == kept.stat().st_size
    both = "".join(f"{unicodedata.normalize(form, name)},bus,train\n" for form in ("NFC", "NFD"))
    assert "is already on" in error_of(write("file,scene,split\n" + both, "both.csv"))
    labels = tmp_path / "my.events.npz"  # also where the labels are in the other form
    clips = np.array([unicodedata.normalize(stored, each) for each in (name, other)])
    np.savez(labels, clip=clips, events=np.array(["Dog"]), probabilities=np.float32([[0.25], [1]]))
    assert [clip.events.item() for clip in read_manifest(path).clips] == [0.25, 1]


def test_a_manifest_of_windows_is_read_and_noted(write, tmp_path, capsys):
    (tmp_path / "audio" / "deep").mkdir(parents=True)
    for name in ("audio/c00.wav", "audio/deep/c01.wav", "audio/back\\slash.wav", "c02.wav"):
        soundfile.write(tmp_path / name, np.zeros(160), 16000)
    names = "audio\\c00.wav", "audio\\deep\\c01.wav", "audio/back\\slash.wav", ".\\c02.wav"
    text = "file,scene,split\n" + "".join(f"{name},bus,train\n" for name in names)
    path = write(text)
    clips = [0, 1, 2, 3]
    np.savez(
        tmp_path / "my.events.npz",
        clip=np.array(["c00", "c01", "slash", "c02"]),
        events=np.array(["Dog"]),
        probabilities=np.float32(clips)[:, None] / 4,
    )
    found = read_manifest(path).clips
    assert [clip.name for clip in found] == list(names)
    assert [clip.events.item() * 4 for clip in found] == clips
    assert all(len(clip.load(16000, "mean")) == 160 for clip in found)
    read_recordings(path)  # warns only once
    warning = f"warning: {path}: the backslashes of 3 file names are read as slashes\n"
    assert capsys.readouterr().err == warning
    assert "is already on" in error_of(write(text + "audio/c00.wav,bus,train\n", "twice.csv"))
    missing = read_recordings(write("file,scene\nno\\c00.wav,bus\n"))
    assert missing[0].state is None and missing[0].path == tmp_path / "no\\c00.wav"


def test_an_event_with_two_columns(write):
    text = "file,scene,split,event:Dog,event: Dog\na.wav,bus,train,0,1\n"
    assert "line 1: the event 'Dog' has several columns; keep one" in error_of(write(text))


@pytest.mark.parametrize("name", ["none.csv", "folder"])
def test_what_is_no_manifest_is_reported_with_a_remedy(tmp_path, name):
    (tmp_path / "folder").mkdir()
    remedy = "; name a CSV with the columns file, scene and split (docs/data.md); data_prep/esc10"
    assert remedy in error_of(tmp_path / name)
