"""The error that a user's input earns."""

import os
from pathlib import Path


class InputError(ValueError):
    """A wrong file, field or value; the message is one line that names it and says what to do.

    Command-line programs print the message without a traceback and exit with status 2.
    """


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
