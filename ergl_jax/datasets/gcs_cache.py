"""Prepared datasets in a bucket, and their copies on this machine.

Array records are read in random order, only from a disk; so a dataset of gs://... is downloaded to
the user's cache directory once, and one prepared here is uploaded.
"""

import contextlib
import os
import shutil
from pathlib import Path

from ergl_jax import cache, files


def directory() -> Path:
    """Of the copies: `prepared` in the cache directory; may be deleted."""
    return files.make_directory(cache.directory() / "prepared", "directory")


def download(remote: Path, local: Path, last: str) -> bool:
    """Copies a dataset's directory from a bucket; False if it isn't there or has no file `last`.

    `local` is complete or absent. Raises InputError if reading fails.
    """
    tmp_path = local.with_name(f"{local.name}.{os.getpid()}.writing")
    try:
        with files.reading(remote):
            if not (remote / last).exists():
                return False
            tmp_path.mkdir(parents=True)
            for path in remote.iterdir():
                (tmp_path / path.name).write_bytes(path.read_bytes())
        with contextlib.suppress(OSError):  # another process of this machine was first
            os.replace(tmp_path, local)
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)
    return True


def upload(local: Path, remote: Path, last: str) -> None:
    """Copies a dataset's files to a bucket, `last` at the end, which marks it as complete."""
    for path in sorted(local.iterdir(), key=lambda path: path.name == last):
        files.upload(path, remote / path.name)
