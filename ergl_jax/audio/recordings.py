"""Which recordings a file name, a folder or a pattern stands for."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from ergl_jax.errors import InputError
from ergl_jax.files import local_path

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff", ".opus")


def expand(pattern: str | os.PathLike) -> list[str]:
    """The recordings that a file, a folder or a pattern stands for, in order.

    A pattern without matches is returned as it is: reading it reports that it is missing. Raises
    InputError for a folder without audio files, OSError for one that can't be read.
    """
    path = local_path(pattern, "a recording's name")
    if os.path.isdir(path):  # unlike Path.is_dir, False where access is denied
        found = sorted(audio_files(path))
        if not found:
            raise InputError(f"{path} contains no audio file ({', '.join(SUFFIXES)})")
        return found
    matches = [] if os.path.exists(path) else sorted(glob.glob(str(path), recursive=True))
    return [match for match in matches if not os.path.isdir(match)] or [str(path)]


def audio_files(folder: Path) -> Iterator[str]:
    """The audio files in a folder, at any depth; links to folders aren't followed."""

    def fail(error: OSError):
        raise error

    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(parent, name)
