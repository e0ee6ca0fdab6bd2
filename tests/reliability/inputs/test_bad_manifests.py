"""Wrong manifests, labels and archives through data_prep, and odd manifests that work."""

import csv
import hashlib
import io
import json
import stat
import zipfile

import numpy as np
import pytest
import soundfile

HEAD = "file,scene,split\n"
GOOD = HEAD + "a.wav,tram,train\nb.wav,bus,train\nc.wav,bus,test\n"
GROUPS = "file,scene,split,group\na.wav,tram,train,lisbon\nb.wav,bus,test,lisbon\n"
EVENT = "file,scene,split,event:Dog\na.wav,tram,train,{}\n"
MANIFESTS = {
    "no such file": (None, [], ["can't read the manifest: No such file"]),
    "empty": ("", [], ["the manifest is empty"]),
    "no rows": (HEAD, [], ["no rows below its header"]),
    "no column file": (GOOD.replace("file", "path"), [], ["line 1", "no column 'file'"]),
    "no column scene": (GOOD.replace("scene", "label"), [], ["line 1", "no column 'scene'"]),
    "no column split": (GOOD.replace("split", "part"), [], ["line 1", "no column 'split'"]),
    "semicolons": (GOOD.replace(",", ";"), [], ["line 1", "file;scene;split"]),
    "a column twice": (GOOD.replace("split", "scene"), [], ["'scene'", "twice"]),
    "unknown split": (GOOD + "d.wav,bus,dev\n", [], ["line 5", "split is 'dev'"]),
    "a clip twice": (GOOD + "./a.wav,bus,train\n", [], ["line 5", "'./a.wav'", "line 2"]),
    "a group in both splits": (GROUPS, [], ["line 3", "group 'lisbon'", "test", "train"]),
    "an empty split": (GOOD + "d.wav,bus,\n", [], ["line 5", "split is ''"]),
    "a field too few": (GOOD + "d.wav,bus\n", [], ["line 5", "2 fields"]),
    "a field too many": (GOOD + "d.wav,bus,test,7\n", [], ["line 5", "4 fields"]),
    "no scene": (GOOD + "d.wav, ,test\n", [], ["line 5", "'scene' is empty"]),
    "an open quote": (GOOD + '"d.wav,bus,test\n', [], ["line 5", "not CSV"]),
    "a field of 200 kB": (HEAD + "a" * 200_000 + ",bus,test\n", [], ["line 2", "not CSV"]),
    "latin-1": (GOOD.replace("tram", "caf\xe9").encode("latin-1"), [], ["isn't UTF-8"]),
    "utf-16": (GOOD.encode("utf-16"), [], ["isn't UTF-8"]),
    "zeros": (bytes(1000), [], ["line 1", "no column"]),
    "a zero in a name": (GOOD + "d\0.wav,bus,test\n", [], ["line 5", "'file'"]),
    "a line break in a name": ('file,scene,split\n"a\nb",x,dev\n', [], ["line 3", "'dev'"]),
    "event above 1": (EVENT.format("1.5"), [], ["line 2", "event:Dog is '1.5'"]),
    "event below 0": (EVENT.format("-0.1"), [], ["line 2", "event:Dog is '-0.1'"]),
    "event NaN": (EVENT.format("nan"), [], ["line 2", "event:Dog is 'nan'"]),
    "event in words": (EVENT.format("often"), [], ["line 2", "event:Dog is 'often'"]),
    "folds without a column": (GOOD, ["--test_folds=1"], ["line 1", "no column 'fold'"]),
    "unknown fold": (
        "file,scene,fold\na.wav,tram,1\n",
        ["--test_folds=7"],
        ["no row of fold '7'"],
    ),
    "no clip can be decoded": (HEAD + "a.wav,tram,train\n", ["--strict"], ["a.wav", "can't be op"]),
    "fraction": (GOOD, ["--validation_fraction=1"], ["validation fraction is 1.0"]),
    "seed": (GOOD, ["--validation_seed=-1"], ["validation_seed", "-1"]),
    "front end": (GOOD, ["--front_end=mel"], ["front_end='mel'", "panns_16k"]),
    "clip length": (GOOD, ["--clip_seconds=0"], ["clip_seconds is 0.0"]),
    "clip length in words": (GOOD, ["--clip_seconds=ten"], ["--clip_seconds", "'ten'"]),
    "no clip length": (GOOD, ["--clip_seconds=nan"], ["clip_seconds is nan"]),
    "a clip of an age": (GOOD, ["--clip_seconds=1e12"], ["clip_seconds is 1000000000000.0"]),
    "padding": (GOOD, ["--pad=wrap"], ["--pad", "'wrap'"]),
    "another source's flag": (GOOD, ["--archives=zips"], ["--archives is a flag of tut2018"]),
    "no data_dir": (GOOD, ["--data_dir="], ["data_dir is empty"]),
    "a data_dir that is a file": (GOOD, ["--data_dir=HERE/my.csv"], ["data_dir", "my.csv"]),
    "unknown flag": (GOOD, ["--nonsense=1"], ["--nonsense=1"]),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_wrong_manifest_or_flag(commands, tmp_path, name):
    text, more, words = MANIFESTS[name]
    path = commands.here / "my.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    more = [argument.replace("HERE", str(commands.here)) for argument in more]
    by_flag = any(argument.split("=")[0].strip("-") in " ".join(words) for argument in more)
    words = words if by_flag or more else [str(path), *words]
    data_dir = f"--data_dir={tmp_path / 'data'}"
    commands.refuse("prepare_dataset.py", f"--manifest={path}", data_dir, *more, words=words)
    assert not list(tmp_path.glob("data/*/*/*"))  # no half of a dataset


def reads(commands, content: bytes) -> str:
    path = commands.here / "my.csv"
    path.write_bytes(content)
    for row in csv.DictReader(io.StringIO(content.decode("utf-8-sig"))):
        recording = commands.here / next(iter(row.values())).strip()
        recording.parent.mkdir(exist_ok=True)
        soundfile.write(recording, np.full(8000, 0.1), 16000, format="WAV")
    arguments = ["--front_end=panns_16k", "--clip_seconds=0.5", "--validation_fraction=0"]
    data_dir = f"--data_dir={commands.here / 'data'}"
    outcome = commands.run("prepare_dataset.py", f"--manifest={path}", data_dir, *arguments)
    assert outcome.status == 0 and not outcome.err, outcome
    return outcome.out


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace(",", " , ").replace("\n", " \n\n").encode(),
        lambda text: (
            text.replace("tram", "Straßenbahn 路面電車").replace("a.wav", "é/ü.wav").encode()
        ),
        lambda text: text.replace("a.wav", '"a, b ""c"".wav"').encode(),
    ],
    ids=["BOM", "CRLF", "spaces", "Unicode", "quotes"],
)
def test_an_odd_manifest_is_read(commands, change):
    out = reads(commands, change(GOOD))
    header, *scenes, total = [line.split()[-2:] for line in out.splitlines()[1:]]
    assert (header, total) == (["train", "test"], ["2", "1"])
    assert sorted(scenes) == [["1", "0"], ["1", "1"]]


def test_a_hundred_thousand_rows_are_read_and_held_out(commands):
    rows = "".join(
        f"{i}.wav,scene{i % 10},{'test' if i % 4 == 0 else 'train'}\n" for i in range(10**5)
    )
    (commands.here / "my.csv").write_text(HEAD + rows)
    clips = np.array([str(i) for i in range(10**5)])
    labels = np.random.default_rng(0).random((10**5, 3), np.float32)
    path = commands.here / "labels.npz"
    np.savez(path, clip=clips, events=np.array(["a", "b", "c"]), probabilities=labels)
    arguments = [f"--manifest={commands.here / 'my.csv'}", f"--labels={path}", "--top=2"]
    outcome = commands.run("rank_events.py", *arguments)
    assert outcome.status == 0 and outcome.out.splitlines()[-1].startswith("2 events by 52500 ")


CLIPS, NAMES = np.array(["a", "b", "c"]), np.array(["Dog", "Rain"])
P = np.full((3, 2), 0.5)


def npz(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **({"clip": CLIPS, "events": NAMES, "probabilities": P} | arrays))
    return buffer.getvalue()


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def without(name: str) -> bytes:
    kept = {"clip": CLIPS, "events": NAMES, "probabilities": P}
    del kept[name]
    buffer = io.BytesIO()
    np.savez(buffer, **kept)
    return buffer.getvalue()


def with_value(value: float) -> bytes:
    changed = P.copy()
    changed[1, 1] = value
    return npz(probabilities=changed)


def encrypted() -> bytes:
    content = bytearray(npz())
    for at in (content.index(b"PK\x03\x04") + 6, content.index(b"PK\x01\x02") + 8):
        content[at] |= 1
    return bytes(content)


LABELS = {
    "no such file": (None, ["can't read the events: No such file"]),
    "not an npz": (b"clip,events", ["not an .npz of plain arrays"]),
    "empty": (b"", ["not an .npz of plain arrays"]),
    "a lone array": (npy(P), ["not an .npz of plain arrays"]),
    "truncated": (npz()[:-100], ["not an .npz of plain arrays"]),
    "damaged": (npz().replace(b"descr", b"desxr", 1), ["not an .npz of plain arrays"]),
    "encrypted": (encrypted(), ["not an .npz of plain arrays"]),
    "pickled names": (npz(clip=CLIPS.astype(object)), ["not an .npz of plain arrays"]),
    "pickled values": (npz(probabilities=P.astype(object)), ["not an .npz of plain arrays"]),
    "no clips": (without("clip"), ["no array 'clip'"]),
    "no events": (without("events"), ["no array 'events'"]),
    "no probabilities": (without("probabilities"), ["no array 'probabilities'"]),
    "another clip set": (npz(clip=np.array(["a", "b", "x"])), ["line 4", "no clip 'c'"]),
    "a clip twice": (npz(clip=np.array(["a", "a", "c"])), ["'clip' holds 'a' twice"]),
    "an event twice": (npz(events=np.array(["Dog", "Dog"])), ["'events' holds 'Dog' twice"]),
    "a row too few": (npz(probabilities=P[:2]), ["'probabilities' is float64 (2, 2)"]),
    "a column too many": (npz(events=NAMES[:1]), ["(3 clips, 1 events)"]),
    "another width of AudioSet": (
        npz(tags=np.zeros((3, 526)), events=np.array([str(i) for i in range(527)])),
        ["'tags' is float64 (3, 526)"],
    ),
    "no numbers": (npz(probabilities=P.astype(str)), ["'probabilities' is <U32 (3, 2)"]),
    "NaN": (with_value(np.nan), ["'probabilities' of 'b', 'Rain' is nan"]),
    "infinite": (with_value(np.inf), ["'b', 'Rain' is inf"]),
    "above 1": (with_value(1.01), ["'b', 'Rain' is 1.0"]),
    "below 0": (with_value(-0.5), ["'b', 'Rain' is -0.5"]),
}


@pytest.mark.parametrize("name", LABELS)
def test_wrong_labels(commands, name):
    content, words = LABELS[name]
    manifest, labels = commands.here / "my.csv", commands.here / "labels.npz"
    manifest.write_text(GOOD)
    if content is not None:
        labels.write_bytes(content)
    arguments = [f"--manifest={manifest}", f"--labels={labels}", "--top=1"]
    commands.refuse("rank_events.py", *arguments, words=[str(labels), *words])


def test_more_events_than_there_are(commands):
    (commands.here / "my.csv").write_text(GOOD)
    (commands.here / "my.events.npz").write_bytes(npz())
    arguments = [f"--manifest={commands.here / 'my.csv'}", "--top=3"]
    labels = commands.here / "my.events.npz"
    commands.refuse("rank_events.py", *arguments, f"--labels={labels}", words=["--top=3", "has 2"])


def special(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize("member", ["../x", "/x", "a/../../x", "..\\x", "C:x", special("link")])
def test_an_archive_that_leaves_the_folder(commands, fake_tut, tmp_path, member):
    from ergl_jax.datasets import tut2018

    archives = commands.here / "zips"
    archives.mkdir()
    for name, body in fake_tut.web.files.items():
        (archives / name).write_bytes(body)
    name = f"{tut2018.FOLDER}.doc.zip"
    bad = io.BytesIO()
    with zipfile.ZipFile(bad, "w") as file:
        file.writestr("good", b"1")
        file.writestr(member, b"/etc/passwd")
    bad = bad.getvalue()
    (archives / name).write_bytes(bad)
    release = tut2018.DEVELOPMENT
    changed = tut2018.Archive(release.archives[0].url, len(bad), hashlib.md5(bad).hexdigest())
    tut2018.DEVELOPMENT = tut2018.Release((changed, *release.archives[1:]), release.clips)
    arguments = ["tut2018", f"--root={tmp_path / 'root'}", f"--archives={archives}"]
    outcome = commands.run("prepare_dataset.py", *arguments)
    assert outcome.status == 2 and outcome.err[0] == tut2018.LICENCE
    (line,) = outcome.err[1:]
    shown = json.dumps(getattr(member, "filename", member)).strip('"').replace("\\\\", "\\")
    assert name in line and shown in line.replace("\\\\", "\\") and "nothing was unpacked" in line
    assert {path.name for path in (tmp_path / "root").iterdir()} == {".unpacked"}
    assert not (tmp_path / "x").exists() and not (tmp_path / "root" / "good").exists()


def test_an_unknown_class_of_esc10(commands):
    (commands.here / "meta.csv").write_text(
        "filename,label,fold,source\na.wav,dog,1,1\nb.wav,cow,1,2\n"
    )
    arguments = [f"--root={commands.here}", f"--out={commands.here / 'out' / 'esc10.csv'}"]
    commands.refuse("esc10_manifest.py", *arguments, words=["meta.csv", "'cow'"])
