"""Wrong manifests, labels and archives through data_prep, and odd manifests that work."""

import csv
import io

import numpy as np
import pytest
import soundfile

HEAD = "file,scene,split\n"
GOOD = HEAD + "a.wav,tram,train\nb.wav,bus,train\nc.wav,bus,test\n"
GROUPS = "file,scene,split,group\na.wav,tram,train,lisbon\nb.wav,bus,test,lisbon\n"
EVENT = "file,scene,split,event:Dog\na.wav,tram,train,{}\n"
MANIFESTS = {
    "no such file": (None, "", ["can't be read: No such file", "data_prep/esc10_manifest.py"]),
    "empty": (" \n,,\n", "", ["line 1", "no column 'file'; the file is empty"]),
    "no rows": (HEAD, "", ["no rows below the header"]),
    "no column split": (GOOD.replace("split", "part"), "", ["line 1", "no column 'split'"]),
    "unknown split": (GOOD + "d.wav,bus,dev\n", "", ["line 5", "split is 'dev': choose train"]),
    "a clip twice": (GOOD + "./a.wav,bus,train\n", "", ["line 5", "'./a.wav'", "line 2"]),
    "a group in both splits": (GROUPS, "", ["line 3", "group 'lisbon'", "test", "train"]),
    "no scene": (GOOD + "d.wav, ,test\n", "", ["line 5", "'scene' is empty"]),
    "an open quote": (GOOD + '"d.wav,bus,test\n', "", ["line 5", "not CSV"]),
    "a field of 200 kB": (HEAD + "a" * 200_000 + ",bus,test\n", "", ["line 2", "not CSV"]),
    "half of utf-16": (GOOD.encode("utf-16")[:-1], "", ["not UTF-8", "save the table as CSV"]),
    "Cyrillic cp1251": (GOOD.replace("bus", "улица").encode("cp1251"), "", ["not UTF-8"]),
    "no known column": ("a;b\n1;2\n", "", ["no column 'file'", "are a, b", "docs/data.md"]),
    "folds alone": (GOOD.replace("split", "fold"), "", ["some of test, train", "--test_folds"]),
    "a zero in a name": (GOOD + "d\0.wav,bus,test\n", "", ["line 5", "'file'"]),
    "event above 1": (EVENT.format("1.5"), "", ["line 2", "event:Dog is '1.5'"]),
    "event NaN": (EVENT.format("nan"), "", ["line 2", "event:Dog is 'nan'"]),
    "folds without a column": (GOOD, "--test_folds=1", ["line 1", "no column 'fold'"]),
    "fraction": (GOOD, "--validation_fraction=1", ["--validation_fraction: 1"]),
    "seed": (GOOD, "--validation_seed=-1", ["--validation_seed: -1"]),
    "front end": (GOOD, "--front_end=mel", ["front_end='mel'", "panns_16k"]),
    "clip length": (GOOD, "--clip_seconds=nan", ["clip_seconds is nan"]),
    "another source's flag": (GOOD, "--archives=zips", ["--archives is a flag of tut2018"]),
    "a data_dir that is a file": (GOOD, "--data_dir=HERE/my.csv", ["data_dir", "my.csv"]),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_wrong_manifest_or_flag(commands, tmp_path, name):
    text, flag, words = MANIFESTS[name]
    path = commands.here / "my.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    flags = [f"--data_dir={tmp_path / 'data'}"]
    flags += [flag.replace("HERE", str(commands.here))] if flag else []
    words = words if flag else [str(path), *words]
    commands.refuse("prepare_dataset.py", f"--manifest={path}", *flags, words=words)
    assert not list(tmp_path.glob("data/*/*/*"))  # no half of a dataset


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
    path, content = commands.here / "my.csv", change(GOOD)
    path.write_bytes(content)
    for row in csv.DictReader(io.StringIO(content.decode("utf-8-sig"))):
        recording = commands.here / next(iter(row.values())).strip()
        recording.parent.mkdir(exist_ok=True)
        soundfile.write(recording, np.full(8000, 0.1), 16000, format="WAV")
    flags = ["--front_end=panns_16k", "--clip_seconds=0.5", "--validation_fraction=0"]
    flags += [f"--manifest={path}", f"--data_dir={commands.here / 'data'}"]
    outcome = commands.run("prepare_dataset.py", *flags)
    assert outcome.status == 0 and not outcome.err, outcome
    header, *scenes, total = [line.split()[-2:] for line in outcome.out.splitlines()[1:]]
    assert (header, total) == (["train", "test"], ["2", "1"])
    assert sorted(scenes) == [["1", "0"], ["1", "1"]]


@pytest.mark.slow
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


ARRAYS = {
    "clip": np.array(["a", "b", "c"]),
    "events": np.array(["Dog", "Rain"]),
    "probabilities": np.full((3, 2), 0.5),
}


def npz(**arrays) -> bytes:
    """ARRAYS with others in their place, or None for none."""
    buffer = io.BytesIO()
    np.savez(buffer, **{name: x for name, x in (ARRAYS | arrays).items() if x is not None})
    return buffer.getvalue()


def with_value(value: float) -> bytes:
    changed = ARRAYS["probabilities"].copy()
    changed[1, 1] = value
    return npz(probabilities=changed)


PLAIN = "can't be read: not an .npz of plain arrays"
LABELS = {
    "no such file": (None, "can't be read: No such file"),
    "not an npz": (b"clip,events", PLAIN),
    "damaged": (npz().replace(b"descr", b"desxr", 1), PLAIN),
    "pickled values": (npz(probabilities=ARRAYS["probabilities"].astype(object)), PLAIN),
    "another clip set": (npz(clip=np.array(["a", "b", "x"])), "has no clip 'c'"),
    "a clip twice": (npz(clip=np.array(["a", "a", "c"])), "'clip' contains 'a' twice"),
    "a row too few": (npz(probabilities=np.zeros((2, 2))), "'probabilities' is float64 (2, 2)"),
    "no numbers": (npz(probabilities=np.full((3, 2), "x")), "'probabilities' is <U1 (3, 2)"),
    "names as objects": (npz(clip=ARRAYS["clip"].astype(object)), "np.array(names, str)"),
    "above 1 in half": (npz(probabilities=np.full((3, 2), 1.01, "f2")), "is 1.009"),
    "complex": (npz(probabilities=np.full((3, 2), 0.5j)), "is complex128"),
    "NaN": (with_value(np.nan), "'probabilities' of 'b', 'Rain' is nan"),
}


@pytest.mark.parametrize("name", LABELS)
def test_wrong_labels(commands, name):
    content, word = LABELS[name]
    manifest, labels = commands.here / "my.csv", commands.here / "labels.npz"
    manifest.write_text(GOOD)
    if content is not None:
        labels.write_bytes(content)
    flags = [f"--manifest={manifest}", f"--labels={labels}", "--top=1"]
    commands.refuse("rank_events.py", *flags, words=[str(labels), word])
