"""Prepared datasets in a bucket, and their copies on this machine.

Array records are read and written on a disk only, and read in random order; so a dataset of
gs://... is copied to the user's cache directory once, and one that is made here is copied there.
"""

import os
import shutil
from pathlib import Path

from ergl_jax.errors import InputError
from ergl_jax.files import make_directory, upload


def directory() -> Path:
    """Where the copies are: ergl_jax/prepared in $XDG_CACHE_HOME or ~/.cache; may be deleted."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return make_directory(home / "ergl_jax" / "prepared", "directory")


def fetch(remote: Path, local: Path, last: str) -> bool:
    """Copies a dataset's directory from a bucket; False where it isn't there, or without `last`.

    `local` is whole or absent: it is filled beside itself. Raises InputError where reading fails.
    """
    beside = local.with_name(f"{local.name}.{os.getpid()}.writing")
    try:
        if not (remote / last).exists():
            return False
        beside.mkdir(parents=True)
        for path in remote.iterdir():
            (beside / path.name).write_bytes(path.read_bytes())
        if not local.exists():  # else another process of this machine was first
            os.replace(beside, local)
    except Exception as error:  # whatever a client of the storage raises
        if not local.exists():
            raise InputError(f"{remote} can't be read: {error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return True


def store(local: Path, remote: Path, last: str) -> None:
    """Copies a dataset's files to a bucket, `last` at the end: without it there is no dataset."""
    for path in sorted(local.iterdir(), key=lambda path: path.name == last):
        upload(path, remote / path.name)
