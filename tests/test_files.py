"""Files are there whole or not at all."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ergl_jax.errors import InputError
from ergl_jax.files import atomic_write, user_path

ROOT = Path(__file__).resolve().parents[1]


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.csv"
    for text in ("old", "new"):
        with atomic_write(path) as beside:
            beside.write_text(text)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text and list(tmp_path.iterdir()) == [path]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    for error, seen in ((OSError, InputError), (KeyboardInterrupt, KeyboardInterrupt)):
        with pytest.raises(seen), atomic_write(path) as beside:
            beside.write_text("half")
            raise error
        assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_a_line(tmp_path):
    message = "a.csv can't be written: No space left on device; make space"
    with pytest.raises(InputError, match=message), atomic_write(tmp_path / "a.csv"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_two_processes_may_write_the_same_file(tmp_path):
    """Each has a place of its own to write to; the last one stays, whole."""
    path = tmp_path / "a.txt"
    with atomic_write(path) as mine:
        mine.write_text("mine")
        code = "import sys, pathlib; from ergl_jax.files import atomic_write\n"
        code += "with atomic_write(pathlib.Path(sys.argv[1])) as p: p.write_text('theirs')"
        subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=ROOT)
        assert path.read_text() == "theirs"
    assert path.read_text() == "mine" and list(tmp_path.iterdir()) == [path]


def test_a_directory_is_not_replaced(tmp_path):
    with pytest.raises(InputError, match="is a directory: name the file"), atomic_write(tmp_path):
        pytest.fail("it must not come to writing")
    assert tmp_path.is_dir()


def test_a_users_home_is_expanded_and_no_strangers(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert user_path("~/a") == Path("/home/me/a") == user_path(Path("~/a"))
    for same in ("a/~", "~nobody-of-this-name/a", "/a"):
        assert user_path(same) == Path(same)


def test_a_pipe_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="pipe is a device or a pipe"), atomic_write(pipe):
        pass
    assert pipe.is_fifo()
