"""esc10_manifest.py on both shapes of the corpus, and on the real one where it is at hand."""

import csv
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from configs import esc10
from ergl_jax.datasets.manifest import read_manifest
from ergl_jax.labels import AUDIOSET

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("ERGL_SHARED_DATA") or ROOT.parent / "shared" / "data")


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("data_prep/esc10_manifest.py")


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def esc50(tmp_path):
    """ESC-50's layout: two clips of one source, one of another, and one outside ESC-10."""
    names = [("dog", 1, "100"), ("dog", 1, "100"), ("sea_waves", 4, "200")]
    rows = [
        dict(filename=f"{i}.wav", fold=fold, category=name, esc10="True", src_file=source)
        for i, (name, fold, source) in enumerate(names)
    ]
    rows.append(dict(filename="3.wav", fold=2, category="cat", esc10="False", src_file="300"))
    write(tmp_path / "esc50" / "meta" / "esc50.csv", rows)
    return tmp_path / "esc50"


@pytest.fixture
def older(tmp_path):
    """The layout of ESC-10 alone, with labels of its own."""
    names = [("dog_bark", 1, "http://a"), ("fire_crackling", 4, "http://b")]
    rows = [
        dict(filename=f"{name}/{i}.ogg", label=name, fold=fold, source=source)
        for i, (name, fold, source) in enumerate(names)
    ]
    write(tmp_path / "esc10" / "meta.csv", rows)
    return tmp_path / "esc10"


def test_esc50(script, esc50, tmp_path, capsys):
    out = tmp_path / "new" / "esc10.csv"
    assert script.main([f"--root={esc50}", f"--out={out}"]) == 0
    assert capsys.readouterr().out == f"3 clips in {out}\n"
    corpus = read_manifest(out, test_folds=(4,))
    assert corpus.scenes == ("dog", "sea_waves") and corpus.events == ("Dog", "Waves, surf")
    assert [clip.name for clip in corpus.clips] == [
        str(esc50.resolve() / "audio" / f"{i}.wav") for i in range(3)
    ]
    assert [clip.split for clip in corpus.clips] == ["train", "train", "test"]
    assert [clip.group for clip in corpus.clips] == ["100", "100", "200"]
    np.testing.assert_array_equal([clip.events for clip in corpus.clips], [[1, 0], [1, 0], [0, 1]])
    assert [path.name for path in out.parent.iterdir()] == ["esc10.csv"]


def test_the_older_layout(script, older, tmp_path):
    out = tmp_path / "esc10.csv"
    assert script.main([f"--root={older}", f"--out={out}"]) == 0
    corpus = read_manifest(out, test_folds=(4,))
    assert corpus.scenes == ("dog_bark", "fire_crackling") and corpus.events == ("Dog", "Fire")
    assert [clip.group for clip in corpus.clips] == ["http://a", "http://b"]
    assert corpus.clips[0].name == str(older.resolve() / "dog_bark" / "0.ogg")


def test_the_path_of_a_root_may_be_relative(script, older, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert script.main(["--root=esc10", "--out=deep/esc10.csv"]) == 0
    corpus = read_manifest(tmp_path / "deep" / "esc10.csv", test_folds=(4,))
    assert Path(corpus.clips[0].name) == older.resolve() / "dog_bark" / "0.ogg"


def test_paths_may_begin_at_home(script, older, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    assert script.main(["--root=~/esc10", "--out=~/new.csv"]) == 0
    assert (tmp_path / "new.csv").is_file() and not list((tmp_path / "cwd").iterdir())


def test_every_class_has_a_name_of_audiosets(script):
    assert set(script.CLASSES.values()) <= set(AUDIOSET)
    assert len(set(script.CLASSES.values())) == 10


@pytest.mark.parametrize("mistake", ["no corpus", "no such class", "no clip"])
def test_a_mistake_is_one_line_and_status_two(script, older, tmp_path, capsys, mistake):
    root = older
    if mistake == "no corpus":
        root = tmp_path / "nowhere"
    elif mistake == "no such class":
        row = dict(filename="a.ogg", label="cat", fold=1, source="x")
        write(older / "meta.csv", [row])
    else:
        (older / "meta.csv").write_text("filename,label,fold,source\n")
    assert script.main([f"--root={root}", f"--out={tmp_path}/esc10.csv"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "meta.csv" in line and any(x in line for x in ("'cat'", "esc50.csv", "no clip"))
    assert not (tmp_path / "esc10.csv").exists()


def test_an_output_that_cannot_be_written_is_named(script, older, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "esc10.csv", tmp_path):
        assert script.main([f"--root={older}", f"--out={out}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and str(out if out == tmp_path else out.parent) in line


def test_the_real_corpus_fits_the_configuration(script, tmp_path):
    root = SHARED / "esc10"
    if not (root / "meta.csv").is_file():
        pytest.skip(f"no ESC-10 in {SHARED}")
    out = tmp_path / "esc10.csv"
    assert script.main([f"--root={root}", f"--out={out}"]) == 0
    data = esc10.get_config().data
    corpus = read_manifest(out, test_folds=data.test_folds)
    assert len(corpus.events) == len(corpus.scenes) == 10 == data.num_events
    sizes = Counter(clip.split for clip in corpus.clips)
    assert sizes["train"] >= 3 * sizes["test"] > 0
    assert all(Path(clip.name).is_file() for clip in corpus.clips)
    shared = {c.group for c in corpus.clips if c.split == "train"} & {
        c.group for c in corpus.clips if c.split == "test"
    }
    assert not shared
    for clip in corpus.clips:
        name = corpus.events[int(np.argmax(clip.events))]
        assert clip.events.sum() == 1 and script.CLASSES[corpus.scenes[clip.scene]] == name
