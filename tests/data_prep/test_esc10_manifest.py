"""esc10_manifest.py on both layouts of the corpus, and on the real one if it is available."""

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
SHARED = Path(os.environ.get("ERGL_SHARED_DATA", "not given"))


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("data_prep/esc10_manifest.py")


def write(path, header, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header.split(","), *rows])


def test_esc50(script, tmp_path, capsys):
    """Two clips of one source, one of another, and one outside ESC-10."""
    rows = [(f"{i}.wav", fold, name, True, source) for i, (fold, name, source) in enumerate(
        [(1, "dog", 100), (1, "dog", 100), (4, "sea_waves", 200)]
    )]  # fmt: skip
    header = "filename,fold,category,esc10,src_file"
    write(tmp_path / "meta" / "esc50.csv", header, *rows, ("3.wav", 2, "cat", False, 300))
    out = tmp_path / "new" / "esc10.csv"
    assert script.main([f"--root={tmp_path}", f"--out={out}"]) == 0
    assert capsys.readouterr().out == f"3 clips in {out}\n"
    corpus = read_manifest(out, test_folds=(4,))
    assert corpus.scenes == ("dog", "sea_waves") and corpus.events == ("Dog", "Waves, surf")
    audio = tmp_path.resolve() / "audio"
    assert [clip.name for clip in corpus.clips] == [f"{audio}/{i}.wav" for i in range(3)]
    assert [clip.split for clip in corpus.clips] == ["train", "train", "test"]
    assert [clip.group for clip in corpus.clips] == ["100", "100", "200"]
    np.testing.assert_array_equal([clip.events for clip in corpus.clips], [[1, 0], [1, 0], [0, 1]])


def test_the_older_layout_under_a_relative_path_and_at_home(script, tmp_path, monkeypatch):
    rows = ("b/0.ogg", "dog_bark", 1, "http://a"), ("f/1.ogg", "fire_crackling", 4, "http://b")
    write(tmp_path / "esc10" / "meta.csv", "filename,label,fold,source", *rows)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for root in ("esc10", "~/esc10"):
        assert script.main([f"--root={root}", "--out=~/deep/esc10.csv"]) == 0
        corpus = read_manifest(tmp_path / "deep" / "esc10.csv", test_folds=(4,))
        assert corpus.scenes == ("dog_bark", "fire_crackling") and corpus.events == ("Dog", "Fire")
        assert [clip.group for clip in corpus.clips] == ["http://a", "http://b"]
        assert corpus.clips[0].name == f"{tmp_path.resolve()}/esc10/b/0.ogg"
    assert script.main(["--root=esc10", "--out=all.csv", "--all_train"]) == 0
    assert [clip.split for clip in read_manifest("all.csv").clips] == ["train", "train"]


@pytest.mark.parametrize(
    "rows, reason", [(None, "meta.csv can't be read"), ([("a.ogg", "cat", 1, 2)], "'cat'")]
)
def test_a_mistake_is_one_line_and_status_two(script, tmp_path, capsys, rows, reason):
    if rows:
        write(tmp_path / "meta.csv", "filename,label,fold,source", *rows)
    assert script.main([f"--root={tmp_path}", f"--out={tmp_path}/esc10.csv"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line and str(tmp_path) in line and not (tmp_path / "esc10.csv").exists()


def test_the_real_corpus_fits_the_configuration(script, tmp_path):
    root = SHARED / "esc10"
    if not (root / "meta.csv").is_file():
        pytest.skip(f"no ESC-10 in {SHARED}")
    out = tmp_path / "esc10.csv"
    assert script.main([f"--root={root}", f"--out={out}"]) == 0
    data = esc10.get_config().data
    corpus = read_manifest(out, test_folds=data.test_folds)
    assert len(corpus.events) == len(corpus.scenes) == 10 == data.num_events
    assert set(corpus.events) <= set(AUDIOSET)
    sizes = Counter(clip.split for clip in corpus.clips)
    assert sizes["train"] >= 3 * sizes["test"] > 0
    assert all(Path(clip.name).is_file() for clip in corpus.clips)
    for clip in corpus.clips:
        name = corpus.events[int(np.argmax(clip.events))]
        assert clip.events.sum() == 1 and script.CLASSES[corpus.scenes[clip.scene]] == name
