"""Files from the internet: whole, checked, and taken up again where a download stopped."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from ergl_jax.errors import InputError, make_directory

CHUNK = 1 << 20  # bytes
TIMEOUT = 60  # seconds without a byte


def fetch(url: str, path: str | os.PathLike, *, md5: str, size: int | None = None) -> Path:
    """Brings `url` to `path`, under that name only when its MD5 is right; returns the path.

    What has come so far waits in `<path>.part`, and the same call goes on from there where the
    server can (HTTP Range). A file that is there already is checked and kept.

    Args:
      url: http or https.
      path: of the file; its directory is made.
      md5: hex.
      size: in bytes, where it is known: a file of another size is then not even read.

    Raises:
      InputError: the server can't be reached, refuses, or stops before the end; or the file is
        not the one that `md5` and `size` tell of. A wrong download is deleted.
    """
    path = Path(path)
    if path.exists():
        check(path, md5=md5, size=size)
        return path
    make_directory(path.parent, "directory")
    part = path.with_name(path.name + ".part")
    _download(url, part)
    try:
        check(part, md5=md5, size=size)
    except InputError as error:
        part.unlink()
        raise InputError(f"{url}: {error}") from error
    os.replace(part, path)
    return path


def check(path: Path, *, md5: str, size: int | None = None) -> None:
    """InputError unless the file has this MD5 (hex) and, if given, this size in bytes."""
    try:
        found = path.stat().st_size
        if size is not None and found != size:
            raise InputError(f"{path} has {found} bytes, not {size}: another file, or damaged")
        digest = file_md5(path)
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from error
    if digest != md5:
        raise InputError(f"{path} has the MD5 {digest}, not {md5}: another file, or damaged")


def file_md5(path: Path) -> str:
    """The MD5 of a file, hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _download(url: str, part: Path) -> None:
    """Appends to `part` what it still lacks, or begins it anew where the server can't go on."""
    begun = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "ergl_jax"} | ({"Range": f"bytes={begun}-"} if begun else {})
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                begun = 0
            length = response.headers.get("Content-Length")
            total = begun + int(length) if length else None
            bar = tqdm(
                total=total,
                initial=begun,
                desc=part.stem,
                unit="B",
                unit_scale=True,
                unit_divisor=1000,
            )
            with bar, open(part, "ab" if begun else "wb") as file:
                while chunk := response.read(CHUNK):
                    bar.update(file.write(chunk))
                received = file.tell()
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and begun:
            return  # all of it had come: the MD5 decides
        raise InputError(f"{url}: the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise InputError(f"{url}: {reason}; the same command goes on from here") from error
    if total is not None and received < total:  # a connection that closed early is no exception
        raise InputError(
            f"{url}: stopped after {received} of {total} bytes; the same command goes on from here"
        )
