"""Errors of reading and writing in one line; files that are never half written."""

import errno
import os
import unicodedata
from pathlib import Path

import pytest
from programs import python

from ergl_jax import files
from ergl_jax.errors import InputError
from ergl_jax.files import atomic_write, user_path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"\xff", "not UTF-8 text"),
        (b'{"a"\n: ', "not JSON: Expecting value: line 2"),
        (b"[" * 100_000, "not JSON: maximum recursion depth exceeded"),
    ],
)
def test_what_cannot_be_read_is_an_input_error(tmp_path, content, reason):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        files.read_json(path, "choose another")
    message = str(caught.value)
    assert message.startswith(f"{path} can't be read: {reason}")
    assert message.endswith("; choose another") and "\n" not in message


def test_reading_keeps_an_input_error():
    with pytest.raises(InputError, match="^line 3: no name$"), files.reading("a.csv"):
        raise InputError("line 3: no name")


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.csv"
    for text in ("old", "new"):
        with atomic_write(path) as temporary:
            temporary.write_text(text)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text and list(tmp_path.iterdir()) == [path]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    full = OSError(errno.ENOSPC, "No space left on device")
    for error, seen in ((full, InputError), (KeyboardInterrupt, KeyboardInterrupt)):
        with pytest.raises(seen) as caught, atomic_write(path) as temporary:
            temporary.write_text("half")
            raise error
        assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
        if error is full:
            message = f"{path} can't be written: No space left on device; make space"
            assert str(caught.value).startswith(message)


def test_two_processes_may_write_the_same_file(tmp_path):
    """Each has its own temporary file; the last one to finish stays, whole."""
    path = tmp_path / "a.txt"
    with atomic_write(path) as mine:
        mine.write_text("mine")
        code = "import sys, pathlib; from ergl_jax.files import atomic_write\n"
        code += "with atomic_write(pathlib.Path(sys.argv[1])) as p: p.write_text('theirs')"
        python("-c", code, path, check=True)
        assert path.read_text() == "theirs"
    assert path.read_text() == "mine" and list(tmp_path.iterdir()) == [path]


def test_directories_and_pipes_are_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, kind in ((tmp_path, "a directory"), (pipe, "a device or a pipe")):
        with pytest.raises(InputError, match=f"{path} is {kind}: name"), atomic_write(path):
            pytest.fail("reached the writing")
    assert pipe.is_fifo()
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match="a directory has the name of a file"):
        with files.atomic_write_together(tmp_path) as directory:
            (directory / "a").write_text("")
    assert (tmp_path / "a").is_dir()


def test_only_a_known_home_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert user_path("~/a") == Path("/home/me/a") == user_path(Path("~/a"))
    for same in ("a/~", "~nobody-of-this-name/a", "/a"):
        assert user_path(same) == Path(same)


def test_space_is_the_remedy_only_where_it_is_the_reason(tmp_path):
    for number, remedy in (
        (errno.ENOSPC, "; make space or choose another"),
        (errno.EDQUOT, "; make space or choose another"),
        (errno.EACCES, "Permission denied; choose another"),
        (errno.ENOTEMPTY, "not empty; choose another"),
    ):
        with pytest.raises(InputError) as caught, files.writing(tmp_path):
            raise OSError(number, os.strerror(number))
        assert str(caught.value).endswith(remedy)
    with pytest.raises(InputError, match="the disk is full; make space"), files.writing(tmp_path):
        raise OSError("100 requested and 0 written")  # as NumPy does


def test_a_path_is_found_whatever_its_unicode_form_and_slashes(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    (tmp_path / nfc / nfd).mkdir(parents=True)
    (tmp_path / "a\\b").mkdir()
    (tmp_path / "c").mkdir()
    for asked, found in {
        f"{nfd}/{nfc}": f"{nfc}/{nfd}",
        f"{nfd}\\{nfc}": f"{nfc}/{nfd}",
        f"c\\..\\{nfc}": f"c/../{nfc}",
        "a\\b": "a\\b",  # as it is
        "a\\b\\c": "a\\b\\c",  # missing ones stay as they are
        f"{nfd}/none": f"{nfd}/none",
        f"{nfc}/\0": f"{nfc}/\0",
        "x" * 5000: "x" * 5000,
    }.items():
        assert files.find_path(tmp_path / asked) == tmp_path / found, asked
    os.mkdir(tmp_path / nfd)  # both are there: each is itself
    for name in (nfc, nfd):
        assert files.find_path(tmp_path / name) == tmp_path / name


def test_without_the_modules_of_unix_files_are_written(tmp_path):
    """As on Windows."""
    code = """
import pathlib, sys
sys.modules |= dict.fromkeys(("fcntl", "pwd", "grp", "resource", "termios"))
from ergl_jax import downloads, files, locks
where = pathlib.Path(sys.argv[1])
with files.atomic_write_together(where) as folder:
    (folder / "a").write_text("")
with downloads._only_process(where / "b") as file:
    file.write(b"b")
"""
    python("-c", code, tmp_path, check=True)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
