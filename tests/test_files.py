"""Files are there whole or not at all."""

import os
from pathlib import Path

import pytest

from ergl_jax.errors import InputError
from ergl_jax.files import replacing, user_path


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.csv"
    for text in ("old", "new"):
        with replacing(path) as beside:
            beside.write_text(text)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text and list(tmp_path.iterdir()) == [path]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    for error in (OSError, KeyboardInterrupt):
        with pytest.raises(error), replacing(path) as beside:
            beside.write_text("half")
            raise error
        assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_directory_is_not_replaced(tmp_path):
    with pytest.raises(InputError, match="is a directory: name the file"), replacing(tmp_path):
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
    with pytest.raises(InputError, match="pipe is a device or a pipe"), replacing(pipe):
        pass
    assert pipe.is_fifo()
