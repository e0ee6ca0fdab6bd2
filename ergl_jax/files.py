"""Paths as users write them, errors of reading and writing, files that are never half written.

A path on Google Cloud Storage, gs://..., is an `epath.Path`, which is used as a `Path` is.
"""

import contextlib
import errno
import functools
import json
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ergl_jax.errors import InputError, require

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

REMOTE = "gs://"
FULL = (errno.ENOSPC, errno.EDQUOT)  # of a disk, of a user's share of it


def user_path(text: str | os.PathLike, name: str = "the path") -> Path:
    """A path as a user writes it, with ~ for their home; also the `type` of a command's flags.

    Shells expand ~ only at the start of a word, so not in `--out=~/a`. Raises InputError for an
    empty path, which Python takes for the current directory, and for a URL other than gs://.
    """
    if not os.fspath(text):
        raise InputError(f"{name} is empty")
    text = os.path.expanduser(text)  # unlike Path.expanduser, leaves an unknown ~name alone
    if is_remote(text):
        require("gcsfs", "gcs", f"{text}: ")
        from etils import epath  # not above: local paths don't need this slow import

        return epath.Path(REMOTE + text[len(REMOTE) :])
    if re.match("[a-z0-9+]+://", text.lower()):
        raise InputError(f"{text}: neither a path of this machine nor {REMOTE}BUCKET/PATH")
    return Path(text)


def local_path(text: str | os.PathLike, name: str = "the path") -> Path:
    """As `user_path`, but InputError for a path that is not on this machine."""
    if is_remote(text):
        raise InputError(f"{text}: must be on this machine; copy it from or to the bucket yourself")
    return user_path(text, name)


def is_remote(path: str | os.PathLike) -> bool:
    """Whether the path is on Google Cloud Storage."""
    return os.fspath(path).lower().startswith(REMOTE)


def find_path(path: Path) -> Path:
    """The file or folder that a user means by a path; the path itself if there is none.

    Where no file has such a name, one counts whose name is the same in another Unicode form (NFC,
    NFD: disks and programs of macOS, Windows and Linux differ), then one with / for backslashes.
    """
    if is_remote(path) or os.path.lexists(path):
        return path
    found, parts = Path(path.anchor), list(path.parts[bool(path.anchor) :])
    while parts:
        part = parts.pop(0)
        if not os.path.lexists(found / part):
            same = _names(found).get(unicodedata.normalize("NFC", part))
            if same is None and "\\" in part:
                parts[:0] = filter(None, part.split("\\"))
                continue
            if same is None:
                return path
            part = same
        found /= part
    return found


def _names(folder: Path) -> dict[str, str]:
    """Names in a folder by their NFC; none if it can't be read."""
    try:
        return _names_at(str(folder), os.stat(folder).st_mtime_ns)
    except OSError:
        return {}


@functools.lru_cache(maxsize=64)  # for a manifest of many such names
def _names_at(folder: str, _time: int) -> dict[str, str]:
    return {unicodedata.normalize("NFC", name): name for name in os.listdir(folder)}


@contextlib.contextmanager
def reading(path: str | os.PathLike, remedy: str = "", form: str = "") -> Iterator[None]:
    """Turns any error of the code below it, which reads or parses a file, into an InputError.

    Args:
      path: the file that the message names.
      remedy: what to do about it, the end of the message.
      form: the file's format, e.g. "CSV", for the message of a file that can't be parsed.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # parsers raise many kinds
        if isinstance(error, UnicodeDecodeError):
            reason = "not UTF-8 text"
        else:
            text = getattr(error, "strerror", None) or " ".join(str(error).split())
            prefix = f"not {form}: " if form and not isinstance(error, OSError) else ""
            reason = prefix + (text or type(error).__name__)
        raise InputError(f"{path} can't be read: {reason}{remedy and f'; {remedy}'}") from error


def read_bytes(path: Path, remedy: str = "") -> bytes:
    """The content of a file; InputError where it can't be read (see `reading`)."""
    with reading(path, remedy):
        return path.read_bytes()


def read_text(path: Path, remedy: str = "") -> str:
    """The content of a UTF-8 text file, without byte order mark, as `read_bytes`."""
    with reading(path, remedy):
        return path.read_bytes().decode("utf-8-sig")


def read_json(path: Path, remedy: str = "") -> Any:
    """The value in a JSON file, as `read_bytes`; `schema.check` checks its fields."""
    text = read_text(path, remedy)
    with reading(path, remedy, "JSON"):
        return json.loads(text)


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Turns an OSError of the code below it, which writes a file, into an InputError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or "the disk is full"  # NumPy's own OSErrors have no strerror
        space = "make space or " if error.errno in (None, *FULL) else ""
        raise InputError(f"{path} can't be written: {reason}; {space}choose another") from error


def make_directory(path: str | os.PathLike, name: str) -> Path:
    """Makes a directory and its parents; InputError as of `check_directory`."""
    path = check_directory(path, name)
    if not is_remote(path):  # a bucket makes it with its first object
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
    return path


def check_directory(path: str | os.PathLike, name: str) -> Path:
    """The path, if it is a directory that can be written to, or one that could be made.

    InputError otherwise, which calls it `name`. Makes nothing: for use before slow work.
    """
    path = user_path(path)
    if not is_remote(path):
        nearest = next(x for x in (path, *path.absolute().parents) if os.path.lexists(x))
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            reason = "is read-only" if nearest.is_dir() else "is a file"
            raise InputError(
                f"{name} {path} can't be made or written to: {nearest} {reason}; choose another"
            )
    return path


@contextlib.contextmanager
def atomic_write_together(directory: Path) -> Iterator[Path]:
    """Yields a temporary directory, whose files replace those in `directory` at the end.

    After an exception all old files are still there. Of several processes that write at once, the
    files of one replace all of the others'. InputError where `directory`, which exists, can't be
    written to.
    """
    with writing(directory):
        tmp_path = Path(tempfile.mkdtemp(prefix=".", suffix=".writing", dir=directory))
        try:
            yield tmp_path
            with locked(directory):
                targets = {path: directory / path.name for path in tmp_path.iterdir()}
                if any(path.is_dir() for path in targets.values()):  # before the first is replaced
                    raise IsADirectoryError(0, "a directory has the name of a file to write")
                for path, target in targets.items():
                    os.replace(path, target)
        finally:
            shutil.rmtree(tmp_path, ignore_errors=True)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Waits for other processes that replace files here; a killed process loses its lock."""
    if fcntl is None:
        yield
        return
    number = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to, which replaces `path` at the end.

    A reader sees the old file or the new one, never half of it; an exception leaves the old one.
    Several processes may write the same file at once. The temporary path is local; for a remote
    `path` the finished file is uploaded. InputError where `path` can't be written or is no file.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory() as directory:
            tmp_path = Path(directory) / path.name
            yield tmp_path
            upload(tmp_path, path)
        return
    if path.exists() and not path.is_file():  # a device or a pipe would be lost
        kind = "a directory" if path.is_dir() else "a device or a pipe"
        raise InputError(f"{path} is {kind}: name the file to write")
    tmp_path = path.with_name(f"{path.name}.{os.getpid()}.writing")
    try:
        with writing(path):
            yield tmp_path
            os.replace(tmp_path, path)
    finally:
        with contextlib.suppress(OSError):
            tmp_path.unlink()


def upload(path: Path, remote: Path) -> None:
    """Copies a local file to a remote path; InputError where that fails."""
    try:
        remote.write_bytes(path.read_bytes())
    except Exception as error:  # storage clients raise many kinds
        raise InputError(
            f"{remote} can't be written: {error}; check that the bucket exists and that this "
            "machine may write to it"
        ) from error
