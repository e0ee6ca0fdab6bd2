"""Unpacks zip archives, never outside the target directory."""

import re
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from ergl_jax import progress
from ergl_jax.downloads import require_space
from ergl_jax.errors import InputError
from ergl_jax.files import make_directory


def unpack(archive: Path, directory: Path, *, strip: str = "") -> None:
    """Unpacks `archive` into `directory`, which exists, over files of the same names.

    Nothing is written unless every member is a plain file inside the directory.

    Args:
      archive: a zip file.
      directory: the target.
      strip: a top folder of the archive to leave out of the paths.

    Raises:
      InputError: a damaged archive, a link, a path outside the directory, or a full disk.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = [info for info in file.infolist() if not info.is_dir()]
            targets = [_target(archive, info, directory, strip) for info in members]
            total = sum(info.file_size for info in members)
            require_space(directory, total)
            desc = f"unpack {archive.name}"
            with progress.bar(desc=desc, total=total, unit="B", unit_scale=True) as bar:
                for info, target in zip(members, targets, strict=True):
                    make_directory(target.parent, "directory")
                    with file.open(info) as source, open(target, "wb") as sink:
                        shutil.copyfileobj(source, sink)
                    bar.update(info.file_size)
    # RuntimeError: encrypted; NotImplementedError: an unknown compression.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{archive} can't be unpacked to {directory}: {reason}") from error


def _target(archive: Path, info: zipfile.ZipInfo, directory: Path, strip: str) -> Path:
    """Where a member is unpacked to."""
    path = PurePosixPath(info.filename.removeprefix(f"{strip}/"))
    target = directory / path
    if (
        stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG)
        or path.is_absolute()
        or ".." in path.parts
        or re.search(r"[\\:\0]", info.filename)
        or not target.resolve().is_relative_to(directory.resolve())  # through an existing link
    ):
        raise InputError(
            f"{archive}: {info.filename!r} is not a plain file inside {directory}; nothing was "
            "unpacked"
        )
    return target
