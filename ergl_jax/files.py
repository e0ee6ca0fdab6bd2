"""Directories that can be written to, and files that are there whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ergl_jax.errors import InputError


def user_path(text: str | os.PathLike) -> Path:
    """A path as a user writes it, ~ for their home; also the `type` of a command's flags.

    `--out=~/a` reaches a program as it is: a shell expands ~ only where a word begins.
    """
    return Path(os.path.expanduser(text))  # unlike Path.expanduser, leaves an unknown ~name alone


def make_directory(path: str | os.PathLike, name: str) -> Path:
    """Makes a directory, its parents too; an InputError that calls it `name` where it can't."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{name} {path} can't be made: {error.strerror}; choose another"
        ) from error
    if not os.access(path, os.W_OK):
        raise InputError(f"{name} {path} can't be written to; choose another")
    return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Lends a path beside `path` to write to, which then becomes `path`.

    A reader finds the old file or the new one, whole; an exception leaves the old one alone, and
    so does another process that writes it at the same time. Raises InputError where `path` is a
    directory, a device or a pipe, or can't be written to.
    """
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
