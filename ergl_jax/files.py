"""Paths as users write them, directories that can be written to, files that are there whole.

A path of Google Cloud Storage, gs://..., is an `epath.Path`, which reads and lists as `Path` does.
"""

import contextlib
import fcntl
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ergl_jax.errors import InputError

REMOTE = "gs://"


def user_path(text: str | os.PathLike, name: str = "the path") -> Path:
    """A path as a user writes it, ~ for their home; also the `type` of a command's flags.

    `--out=~/a` reaches a program as it is: a shell expands ~ only where a word begins. Raises
    InputError for an empty one, which Python takes for the current directory, and for an address of
    another kind than gs://.
    """
    if not os.fspath(text):
        raise InputError(f"{name} is empty")
    text = os.path.expanduser(text)  # unlike Path.expanduser, leaves an unknown ~name alone
    if is_remote(text):
        if not importlib.util.find_spec("gcsfs"):
            raise InputError(f'{text}: Google Cloud Storage needs `pip install "ergl_jax[gcs]"`')
        from etils import epath  # not above: local paths need not wait for it

        return epath.Path(REMOTE + text[len(REMOTE) :])
    if re.match("[a-z0-9+]+://", text.lower()):
        raise InputError(f"{text}: neither a path of this machine nor {REMOTE}BUCKET/PATH")
    return Path(text)


def local_path(text: str | os.PathLike, name: str = "the path") -> Path:
    """As `user_path`, for what must lie on this machine: an InputError where it doesn't."""
    if is_remote(text):
        raise InputError(f"{text}: must be on this machine; copy it from or to the bucket yourself")
    return user_path(text, name)


def is_remote(path: str | os.PathLike) -> bool:
    return os.fspath(path).lower().startswith(REMOTE)


def make_directory(path: str | os.PathLike, name: str) -> Path:
    """Makes a directory, its parents too; an InputError that calls it `name` where it can't."""
    path = user_path(path)
    if is_remote(path):  # made with the first object in it
        return path
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{name} {path} can't be made: {error.strerror}; choose another"
        ) from error
    if not os.access(path, os.W_OK):
        raise InputError(f"{name} {path} can't be written to; choose another")
    return path


def check_directory(path: str | os.PathLike, name: str) -> Path:
    """The path, if `make_directory` could make it; makes nothing: for before what may fail."""
    path = Path(path)
    there = next(each for each in (path, *path.absolute().parents) if os.path.lexists(each))
    if not there.is_dir():
        raise InputError(f"{name} {path} can't be made: {there} is a file; choose another")
    if not os.access(there, os.W_OK):
        raise InputError(f"{name} {path} can't be written to; choose another")
    return path


@contextlib.contextmanager
def atomic_write_together(directory: Path) -> Iterator[Path]:
    """Lends a directory in `directory`, the files of which then replace those of their names there.

    Where several processes do this at once, all files that stay are one's. An exception leaves the
    old ones alone. `directory` exists; InputError where it can't be written to.
    """
    try:
        beside = Path(tempfile.mkdtemp(prefix=".", suffix=".writing", dir=directory))
        try:
            yield beside
            with _locked(directory):
                targets = {path: directory / path.name for path in beside.iterdir()}
                if strange := [path for path in targets.values() if path.is_dir()]:
                    raise InputError(f"{strange[0]} is a directory where a file is to be written")
                for path, target in targets.items():
                    os.replace(path, target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"{directory} can't be written to: {error.strerror}; make space or choose another"
        ) from error


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Waits for other processes that are here too; the system frees a killed one's lock."""
    number = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Lends a path beside `path` to write to, which then becomes `path`.

    A reader finds the old file or the new one, whole; an exception leaves the old one alone, and
    so does another process that writes it at the same time. Raises InputError where `path` is a
    directory, a device or a pipe, or can't be written to. Lends a local path in place of a remote
    one, which the finished file is copied to.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory() as directory:
            beside = Path(directory) / path.name
            yield beside
            upload(beside, path)
        return
    if path.is_dir():
        raise InputError(f"{path} is a directory: name the file to write")
    if path.exists() and not path.is_file():  # replaced, it would be gone
        raise InputError(f"{path} is a device or a pipe: name the file to write")
    beside = path.with_name(f"{path.name}.{os.getpid()}.writing")
    try:
        yield beside
        os.replace(beside, path)
    except OSError as error:
        reason = error.strerror or "the disk is full"  # NumPy's own errors are no system's
        raise InputError(
            f"{path} can't be written: {reason}; make space or choose another"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def upload(path: Path, remote: Path) -> None:
    """Copies a file of this machine to a remote path; InputError where that fails."""
    try:
        remote.write_bytes(path.read_bytes())
    except Exception as error:  # whatever a client of the storage raises
        raise InputError(
            f"{remote} can't be written: {error}; see that the bucket is there and this machine "
            "may write to it"
        ) from error
