"""Files from the network: resumed where they stopped, and whole or absent."""

import contextlib
import fcntl
import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

import ergl_jax
from ergl_jax.errors import InputError
from ergl_jax.files import make_directory

ATTEMPTS = 5  # in a row without a new byte
PAUSE_SECONDS = 2.0  # after the first failed attempt; twice as long after each further one
TIMEOUT_SECONDS = 60.0
CHUNK = 1 << 20
# Plain http, which anyone on the way can change, is for servers on this machine.
ADDRESS = r"(?i)https://[^/\s]\S*|http://(localhost|127\.0\.0\.1)(:\d+)?/\S*"
NO_ADDRESS = "{} is not an address of https"


def fetch(url: str, path: str | os.PathLike, *, md5: str, size: int | None = None) -> Path:
    """Downloads `url` to `path`, or checks the file that is there already; returns the path.

    What has arrived is kept in `<path>.part`. A lost connection is taken up again from there, also
    by a later call; a server that knows no ranges starts anew.

    Args:
      url: https; http on this machine alone. A redirection leads nowhere else.
      path: where the file will be; its directory is made.
      md5: the file's, in hex.
      size: the file's in bytes, if known: another answer is refused, by its header or as soon as
        more has come.

    Raises:
      InputError: the file can't be had or written, another process is at it, or it is not the
        one that `md5` names.
    """
    path = Path(path)
    if path.exists():
        verify(path, md5=md5, size=size)
        return path
    if not re.fullmatch(ADDRESS, url):
        raise InputError(NO_ADDRESS.format(url))
    make_directory(path.parent, "directory")
    part = _part(path)
    with _alone(part):
        _download(url, part, size)
        if difference := _difference(part, md5, size):
            part.unlink()
            raise InputError(f"{url}: {difference}; it was deleted, the same command gets it anew")
        os.replace(part, path)
    return path


def remaining(path: Path, size: int) -> int:
    """Bytes that `fetch` still has to get and write of a file of `size` bytes."""
    return 0 if path.exists() else size - _bytes(_part(path))


def verify(
    path: Path,
    *,
    md5: str,
    size: int | None = None,
    remedy: str = "replace it, or remove it to have it downloaded",
) -> None:
    """InputError unless the file can be read and has that checksum, and that size if given.

    Its message ends with the `remedy`.
    """
    try:
        difference = _difference(path, md5, size)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from error
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
def _alone(part: Path) -> Iterator[None]:
    """Keeps other processes from `part`, which exists meanwhile; the system frees a killed one's.

    Raises InputError where another process has it, or where it can't be written.
    """
    try:
        file = open(part, "ab")
    except OSError as error:
        raise InputError(f"{part} can't be written: {error.strerror}") from error
    with file:
        try:
            _lock(file)
            # The other one may have finished, and taken it away, since it was opened here.
            mine = os.path.samestat(os.fstat(file.fileno()), part.stat())
        except (BlockingIOError, FileNotFoundError):
            mine = False
        if not mine:
            raise InputError(f"{part}: another process is at it: try again when that has ended")
        try:
            yield
        finally:
            if not os.fstat(file.fileno()).st_size:
                part.unlink(missing_ok=True)


def _lock(file: BinaryIO) -> None:
    """BlockingIOError where another process has locked the file; nothing where none can be."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        pass


def _download(url: str, part: Path, size: int | None) -> None:
    """All of `url` to `part`, in as many requests as it takes."""
    failures = 0
    with tqdm(desc=part.stem, unit="B", unit_scale=True, unit_divisor=1000) as bar:
        while True:
            before = _bytes(part)
            try:
                _receive(url, part, size, bar)
                return
            except (OSError, http.client.HTTPException) as error:
                failures = failures + 1 if _bytes(part) <= before else 1
                if failures == ATTEMPTS:
                    raise InputError(
                        f"{url} can't be downloaded: {error}; the same command goes on after "
                        f"{_bytes(part)} bytes"
                    ) from error
            time.sleep(PAUSE_SECONDS * 2 ** (failures - 1))


def _receive(url: str, part: Path, size: int | None, bar: tqdm) -> None:
    """One request, for what `part` lacks; OSError or HTTPException where the network fails."""
    offset = _bytes(part)
    if offset == size:
        return
    if size is not None and offset > size:  # of another file
        offset = 0
    headers = {"User-Agent": f"ergl_jax/{ergl_jax.__version__}"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        response = urllib.request.build_opener(_Redirections).open(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS
        )
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # nothing beyond what is here: the checksum decides
            return
        if error.code < 500 and error.code not in (408, 429):  # these may pass
            raise InputError(f"{url} can't be downloaded: {error}") from error
        raise
    except InputError:  # a ValueError too
        raise
    except (ValueError, http.client.InvalidURL) as error:  # such as a port that is no number
        raise InputError(NO_ADDRESS.format(url)) from error
    with response:
        if response.headers.get_content_type() == "text/html":
            raise InputError(f"{url} is answered with a web page: does a login stand in between?")
        if not (
            response.status == 206
            and response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
        ):
            offset = 0
        length = response.headers.get("Content-Length")
        total = size if length is None else offset + int(length)
        if size is not None and total != size:
            raise InputError(f"{url} has {total} bytes where {size} are expected: not that file")
        bar.total, bar.n = total, offset
        bar.refresh()
        try:
            # Unbuffered: every byte counted is on disk, and a full disk shows itself in `write`.
            file = open(part, "ab" if offset else "wb", buffering=0)
        except OSError as error:
            raise InputError(f"{part} can't be written: {error.strerror}") from error
        with file:
            while chunk := response.read(CHUNK):
                if total is not None and bar.n + len(chunk) > total:
                    raise InputError(f"{url} has more than {total} bytes: not that file")
                try:
                    file.write(chunk)
                except OSError as error:
                    raise InputError(f"{part} can't be written: {error.strerror}") from error
                bar.update(len(chunk))
    if total is not None and _bytes(part) < total:
        raise ConnectionError(f"the connection broke off after {_bytes(part)} of {total} bytes")


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows to where `fetch` would go itself, but from https to https alone."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        secure = req.type != "https" or newurl.lower().startswith("https:")
        if not (secure and re.fullmatch(ADDRESS, newurl)):
            fp.close()
            raise InputError(f"{req.full_url} leads to {newurl}, which is not an address of https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _difference(path: Path, md5: str, size: int | None) -> str:
    """How the file differs from what it should be, "" if it doesn't."""
    if size is not None and _bytes(path) != size:
        return f"{_bytes(path)} bytes where {size} are expected"
    found = file_md5(path)
    return "" if found == md5 else f"md5 is {found} where {md5} is expected"


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
