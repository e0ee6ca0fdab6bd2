"""Downloads that resume where they stopped, and leave a whole file or none."""

import contextlib
import hashlib
import http.client
import io
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

import ergl_jax
from ergl_jax import progress
from ergl_jax.errors import InputError
from ergl_jax.files import fcntl, make_directory, reading, writing

ATTEMPTS = 5  # in a row without a new byte
PAUSE_SECONDS = 2.0  # after the first failed attempt; doubled after each further one
TIMEOUT_SECONDS = 60.0
CHUNK = 1 << 20
# Unencrypted http is for servers on this machine.
ADDRESS = r"(?i)(https://[\w.-]+|http://(localhost|127\.0\.0\.1))(:\d+)?(/\S*)?"


def fetch(url: str, path: str | os.PathLike, *, md5: str, size: int | None = None) -> Path:
    """Downloads `url` to `path`, or checks the file that is already there; returns the path.

    A partial download is kept in `<path>.part`; after a lost connection, or in a later call, it is
    resumed. If the server doesn't support ranges, it starts again.

    Args:
      url: https, or http on this machine; redirections too.
      path: where the file will be; its directory is made.
      md5: the file's, in hex.
      size: the file's in bytes, if known; a different one is an error as soon as it shows.

    Raises:
      InputError: the file can't be downloaded or written, another process is downloading it, or it
        has another checksum or size.
    """
    path = Path(path)
    if path.exists():
        verify(path, md5=md5, size=size)
        return path
    make_directory(path.parent, "directory")
    part = _part(path)
    try:
        if not re.fullmatch(ADDRESS, url):
            raise ValueError("not an https address")
        with _only_process(part) as file:
            _download(url, file, part.stem, size)
            if difference := _difference(part, md5, size):
                part.unlink()
                raise ValueError(f"{difference}; the same command downloads it again")
            os.replace(part, path)
    except (ValueError, http.client.InvalidURL) as error:
        raise InputError(f"{url} can't be downloaded: {error}") from error
    return path


def remaining(path: Path, size: int) -> int:
    """Bytes that `fetch` still has to download of a file of `size` bytes."""
    return 0 if path.exists() else size - _bytes(_part(path))


def verify(
    path: Path,
    *,
    md5: str,
    size: int | None = None,
    remedy: str = "replace it, or remove it to have it downloaded",
) -> None:
    """InputError, which ends with the `remedy`, unless the file has that checksum and size."""
    with reading(path):
        difference = _difference(path, md5, size)
    if difference:
        raise InputError(f"{path}: {difference}; {remedy}")


def file_md5(path: Path) -> str:
    """The MD5 of a file, hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def require_space(directory: Path, needed: float) -> None:
    """InputError unless the disk of `directory`, which exists, has `needed` bytes free."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise InputError(
            f"{directory}: {needed / 1e9:.1f} GB needed and {free / 1e9:.1f} GB free on this disk: "
            "make space or choose another directory"
        )


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


@contextlib.contextmanager
def _only_process(part: Path) -> Iterator[io.FileIO]:
    """Opens `part` for appending, locked against other processes; deletes it if it stays empty.

    Unbuffered, so that every byte counted is on disk and a full disk shows in `write`. A killed
    process loses its lock.
    """
    with writing(part):
        file = open(part, "ab", buffering=0)
    with file:
        locked = True
        try:
            if fcntl:  # not on Windows
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # another one than this: a file system without locks
            locked = not isinstance(error, BlockingIOError)
        # Another process may have finished, and moved the file, since it was opened here.
        if not (locked and part.exists() and os.path.samefile(file.fileno(), part)):
            raise ValueError(f"{part}: another process is downloading it; wait until it has ended")
        try:
            yield file
        finally:
            if not os.fstat(file.fileno()).st_size:
                part.unlink(missing_ok=True)


def _download(url: str, file: io.FileIO, name: str, size: int | None) -> None:
    """All of `url` to the file, in as many requests as it takes."""
    failures = 0
    with progress.bar(desc=name, unit="B", unit_scale=True, unit_divisor=1000) as bar:
        while True:
            before = file.seek(0, os.SEEK_END)
            try:
                return _request(url, file, size, bar)
            except http.client.InvalidURL:
                raise
            except (OSError, http.client.HTTPException) as error:
                after = file.seek(0, os.SEEK_END)
                failures = failures + 1 if after <= before else 1
                if failures == ATTEMPTS:
                    raise ValueError(
                        f"{error}; the same command resumes after {after} bytes"
                    ) from error
            time.sleep(PAUSE_SECONDS * 2 ** (failures - 1))


def _request(url: str, file: io.FileIO, size: int | None, bar: tqdm) -> None:
    """One request for the rest of the file; OSError or HTTPException where the network fails."""
    offset = file.seek(0, os.SEEK_END)
    if offset == size:
        return
    if size is not None and offset > size:  # part of another file
        offset = 0
    headers = {"User-Agent": f"ergl_jax/{ergl_jax.__version__}"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.build_opener(_Redirections).open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # nothing after `offset`: the checksum decides
            return
        if error.code >= 500 or error.code in (408, 429):  # temporary
            raise
        raise ValueError(error) from error
    with response:
        if response.headers.get_content_type() == "text/html":
            raise ValueError("the server sent a web page; perhaps a login is required")
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
        if response.status != 206 or not resumed:
            offset = 0
        length = response.headers.get("Content-Length")
        total = size if length is None else offset + int(length)
        if size is not None and total != size:
            raise ValueError(f"it has {total} bytes where {size} are expected: not that file")
        bar.total, bar.n = total, offset
        bar.refresh()
        with writing(file.name):
            file.truncate(offset)
        while chunk := response.read(CHUNK):
            if total is not None and bar.n + len(chunk) > total:
                raise ValueError(f"it has more than {total} bytes: not that file")
            with writing(file.name):
                file.write(chunk)
            bar.update(len(chunk))
        if total is not None and file.tell() < total:
            raise ConnectionError(f"the connection broke after {file.tell()} of {total} bytes")


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows a redirection to an allowed address, and from https to https only."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        secure = req.type != "https" or newurl.lower().startswith("https:")
        if not secure or not re.fullmatch(ADDRESS, newurl):
            fp.close()
            raise ValueError(f"it redirects to {newurl}, which is not an https address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _difference(path: Path, md5: str, size: int | None) -> str:
    """How the file differs from the expected one, or ""."""
    if size is not None and _bytes(path) != size:
        return f"{_bytes(path)} bytes where {size} are expected"
    found = file_md5(path)
    return "" if found == md5 else f"md5 is {found} where {md5} is expected"


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
