"""Zip archives, unpacked without ever leaving the folder."""

import re
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from ergl_jax.downloads import require_space
from ergl_jax.errors import InputError
from ergl_jax.files import make_directory


def unpack(archive: Path, directory: Path, *, strip: str = "") -> None:
    """Unpacks `archive` into `directory`, over files of the same names.

    Nothing is written before every member's name is found harmless.

    Args:
      archive: a zip file.
      directory: exists.
      strip: a top folder of the archive to leave out of the paths.

    Raises:
      InputError: the archive is damaged, a member is a link or would lie outside `directory`, or
        the disk is too small.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = [info for info in file.infolist() if not info.is_dir()]
            targets = [_target(archive, info, directory, strip) for info in members]
            total = sum(info.file_size for info in members)
            require_space(directory, total)
            desc = f"unpack {archive.name}"
            with tqdm(desc=desc, total=total, unit="B", unit_scale=True) as bar:
                for info, target in zip(members, targets, strict=True):
                    make_directory(target.parent, "directory")
                    with file.open(info) as source, open(target, "wb") as sink:
                        shutil.copyfileobj(source, sink)
                    bar.update(info.file_size)
    # RuntimeError: encrypted; NotImplementedError: an unknown compression.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise InputError(f"{archive} can't be unpacked: {error}") from error
    except OSError as error:
        raise InputError(f"{archive} can't be unpacked to {directory}: {error.strerror}") from error


def _target(archive: Path, info: zipfile.ZipInfo, directory: Path, strip: str) -> Path:
    """Where a member goes."""
    name = info.filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise InputError(f"{archive}: {name!r} is a link or no plain file; nothing was unpacked")
    path = PurePosixPath(name.removeprefix(f"{strip}/"))
    target = directory / path
    if (
        path.is_absolute()
        or ".." in path.parts
        or re.search(r"[\\:\0]", name)
        or not target.resolve().is_relative_to(directory.resolve())  # by a link that lies there
    ):
        raise InputError(f"{archive}: {name!r} leads out of {directory}; nothing was unpacked")
    return target
