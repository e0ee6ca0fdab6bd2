"""Which recordings names, folders and patterns stand for, as people's disks have them."""

import os
import sys
import unicodedata

import pytest
from rights import obeyed

from ergl_jax.audio.recordings import expand
from ergl_jax.errors import InputError, warn


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture
def find(tmp_path, monkeypatch):
    """The recordings of patterns in `tmp_path`, relative to it, and the errors, each in a line."""

    def find(*patterns):
        found, errors = [], []
        for pattern in patterns:
            try:
                found += expand(str(tmp_path / pattern), lambda error: errors.append(str(error)))
            except InputError as error:
                errors.append(str(error))
        return [os.path.relpath(path, tmp_path) for path in found], errors

    return find


def test_a_closed_folder_is_named_and_the_others_are_found(find, tmp_path):
    make(tmp_path, "a/1.wav", "b/2.wav", "b/deep/3.wav", "c/4.wav")
    (tmp_path / "b").chmod(0)
    error = f"{tmp_path / 'b'} can't be read: Permission denied"
    with obeyed():
        for pattern in (".", "**/*.wav", "*/*.wav", "*/**/*.wav"):
            assert find(pattern) == (["a/1.wav", "c/4.wav"], [error]), pattern
        assert find("b", "b/*.wav", "a") == (["a/1.wav"], [error, error])
        os.chmod(tmp_path / "b", 0o700)
    assert find(".")[0] == ["a/1.wav", "b/2.wav", "b/deep/3.wav", "c/4.wav"]


def test_links_to_folders_are_followed_once(find, tmp_path):
    make(tmp_path, "in/b/1.wav", "in/2.wav", "elsewhere/deep/3.wav", ".hidden/4.wav")
    (tmp_path / "in" / "a").symlink_to(tmp_path / "in" / "b")  # also there by its own name
    (tmp_path / "in" / "b" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "b" / "loop2").symlink_to(".")
    (tmp_path / "in" / "z").symlink_to("../elsewhere")
    (tmp_path / "in" / "broken").symlink_to("nowhere")
    (tmp_path / "elsewhere" / "back").symlink_to("../in/b")
    (tmp_path / "link").symlink_to("in")
    expected = ["2.wav", "b/1.wav", "z/deep/3.wav"]
    for folder in ("in", "link"):
        here = [f"{folder}/{name}" for name in expected]
        assert find(folder) == (here, [])
        assert find(f"{folder}/**/*.wav") == (here, [])
    assert find("in/b/loop/b/loop/b/1.wav") == (["in/b/loop/b/loop/b/1.wav"], [])


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("rec[1]/*.wav", ["rec[1]/a.wav", "rec[1]/b.wav"]),
        ("*/a.wav", ["rec1/a.wav", "rec[1]/a.wav", "w?y/a.wav"]),
        ("r*/*/*.wav", ["rec1/in[2]/c.wav", "rec1/in2/c.wav"]),
        ("r*/in[2]/*.wav", ["rec1/in[2]/c.wav"]),  # as it is written
        ("**/in[2]/?.wav", ["rec1/in[2]/c.wav"]),
        ("rec1/in[23]/*.wav", ["rec1/in2/c.wav"]),
        ("w?y/*", ["w?y/a.wav"]),
        ("rec[1]/[ab].wav", ["rec[1]/a.wav", "rec[1]/b.wav"]),
        ("rec[1]/a.wav", ["rec[1]/a.wav"]),
        ("**", ["rec1/a.wav", "rec1/in2/c.wav", "rec1/in[2]/c.wav", "rec[1]/a.wav"]),
        ("rec1/**/**/c.wav", ["rec1/in2/c.wav", "rec1/in[2]/c.wav"]),
        ("rec1/../rec1/*.wav", ["rec1/a.wav"]),
        (".*/*.wav", [".hidden/d.wav"]),
    ],
)
def test_patterns(find, tmp_path, pattern, expected):
    make(tmp_path, "rec[1]/a.wav", "rec[1]/b.wav", "rec1/a.wav", "w?y/a.wav", ".hidden/d.wav")
    make(tmp_path, "rec1/in[2]/c.wav", "rec1/in2/c.wav", "rec1/.e.wav")
    found, errors = find(pattern)
    assert not errors and found[: len(expected)] == sorted(expected)
    assert pattern == "**" or len(found) == len(expected)


def test_patterns_are_relative_to_where_one_is(tmp_path, monkeypatch):
    make(tmp_path, "a/1.wav", "2.wav")
    monkeypatch.chdir(tmp_path)
    for pattern, expected in {
        "*.wav": ["2.wav"],
        "**/*.wav": ["2.wav", "a/1.wav"],
        "./*/1.wav": ["a/1.wav"],
        "a": ["a/1.wav"],
        ".": ["2.wav", "a/1.wav"],
    }.items():
        assert [os.path.normpath(path) for path in expand(pattern, pytest.fail)] == expected


def test_what_stands_for_nothing(find, tmp_path):
    """A missing file is returned: reading it reports that."""
    make(tmp_path, "empty/notes.txt", "a.wav")
    for pattern in ("no*.wav", "**/x[1].wav", "none/*.wav", "a.wav/*", "emp*"):
        assert find(pattern) == ([], [f"{tmp_path / pattern} is a pattern that matches no file"])
    ((), (line,)) = find("empty")
    assert line.startswith(f"{tmp_path / 'empty'} contains no audio file (.wav, ")
    assert find("none.wav") == (["none.wav"], [])


@pytest.mark.skipif(sys.platform == "darwin", reason="its disks know no difference")
@pytest.mark.parametrize(("typed", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_unicode_forms_do_not_matter(find, tmp_path, typed, stored):
    name = "Straßenlärm/Café é.wav"
    kept, asked = (unicodedata.normalize(form, name) for form in (stored, typed))
    assert kept != asked
    make(tmp_path, kept)
    folder = asked.partition("/")[0]
    for pattern in (
        asked,
        folder,
        f"{folder}/*.wav",
        f"*/{asked.partition('/')[2]}",
        f"{asked[:-4]}*",
    ):
        assert find(pattern) == ([kept], []), pattern


def test_files_that_are_not_audio_are_counted_by_extension(find, tmp_path, capsys):
    warn.cache_clear()
    make(tmp_path, "in/1.wav", "in/b/2.MP3", "in/a.txt", "in/b/B.TXT", "in/c.csv", "in/README")
    make(tmp_path, "in/.hidden", "in/.git/config", "only/1.wav")
    assert find("in") == (["in/1.wav", "in/b/2.MP3"], [])
    line = f"{tmp_path}/in: skipped 4 files that are not audio: .txt 2, .csv 1, no extension 1"
    assert sorted(capsys.readouterr().err.splitlines()) == [f"warning: {line}"]
    assert find("only", "in/1.wav", "in/*.wav")[1] == [] and not capsys.readouterr().err
