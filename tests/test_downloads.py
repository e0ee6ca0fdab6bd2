"""Downloads from a server that misbehaves: resumed, checked, whole or absent."""

import errno
import hashlib
import io
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from ergl_jax import downloads
from ergl_jax.downloads import fetch, require_space
from ergl_jax.errors import InputError

BODY = np.random.default_rng(0).bytes(100_000)
SIZE = len(BODY)
MD5 = hashlib.md5(BODY).hexdigest()


@pytest.fixture
def part(tmp_path):
    return tmp_path / "deep" / "a.zip.part"


@pytest.fixture
def download(web, part):
    """Fetches a file of BODY from a server with the given faults."""
    web.files["a.zip"] = BODY

    def download(size=SIZE, md5=MD5, **faults):
        for name, value in faults.items():
            setattr(web, name, value if name == "ranges" else {"a.zip": value})
        return fetch(web.url("a.zip"), part.with_suffix(""), md5=md5, size=size)

    return download


def error_of(function, *arguments, **keywords):
    with pytest.raises(InputError) as caught:
        function(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def ranges(web):
    return [wanted for _, wanted in web.asked]


@pytest.mark.parametrize("size", [SIZE, None])
def test_a_broken_connection_is_resumed(download, web, part, size):
    path = download(size, cuts=[30_000, 1, 0])
    assert path.read_bytes() == BODY and list(part.parent.iterdir()) == [path]
    assert ranges(web) == [None, "bytes=30000-", "bytes=30001-", "bytes=30001-"]
    web.asked.clear()
    download(size)  # it is there
    assert ranges(web) == []


def test_a_later_call_resumes(download, web, part):
    message = error_of(download, cuts=[40_000] + [0] * downloads.ATTEMPTS)
    assert "broke after 40000 of 100000" in message and "resumes after 40000" in message
    assert part.read_bytes() == BODY[:40_000] and not part.with_suffix("").exists()
    web.asked.clear()
    assert download(cuts=[]).read_bytes() == BODY
    assert ranges(web) == ["bytes=40000-"]


def test_two_processes_and_a_killed_one(download, web, part):
    web.stalls["a.zip"] = 60_000
    call = f"fetch({web.url('a.zip')!r}, {str(part.with_suffix(''))!r}, md5={MD5!r})"
    code = f"from ergl_jax import downloads as d; d.CHUNK = 1000; d.{call}"
    killed = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).resolve().parents[1],
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (part.exists() and part.stat().st_size == 60_000):
            assert killed.poll() is None
            time.sleep(0.01)
        assert f"{part}: another process is downloading it" in error_of(download)
        assert part.stat().st_size == 60_000
    finally:
        killed.kill()
        killed.wait()
    assert download().read_bytes() == BODY
    assert ranges(web) == [None, "bytes=60000-"]


def test_another_process_that_finishes_just_before(download, web, part, monkeypatch):
    monkeypatch.setattr(downloads.fcntl, "flock", lambda *_: part.unlink())
    assert "another process" in error_of(download) and web.asked == []


def test_a_file_system_without_locks(download, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(downloads.fcntl, "flock", no_locks)
    assert download().read_bytes() == BODY


def test_a_server_without_ranges(download, web, part):
    """It starts again, and gives up where nothing new arrives."""
    assert download(ranges=False, cuts=[70_000]).read_bytes() == BODY
    assert ranges(web) == [None, "bytes=70000-"]
    part.with_suffix("").unlink()
    web.asked.clear()
    assert "a.zip" in error_of(download, ranges=False, cuts=[70_000] * 20)
    assert len(web.asked) == downloads.ATTEMPTS


def test_a_complete_part_needs_no_request(download, web, part):
    part.parent.mkdir()
    part.write_bytes(BODY)
    assert download().read_bytes() == BODY and web.asked == []
    part.with_suffix("").rename(part)
    assert download(size=None).read_bytes() == BODY  # the server answers 416
    assert ranges(web) == [f"bytes={SIZE}-"]


@pytest.mark.parametrize("content", [BODY + b"more", b"x" * 50_000])
def test_a_part_of_another_file(download, part, content):
    part.parent.mkdir()
    part.write_bytes(content)
    if len(content) < SIZE:  # shows only in the checksum
        assert "md5" in error_of(download) and not list(part.parent.iterdir())
    assert download().read_bytes() == BODY


def test_a_wrong_file(download, web, part):
    """At the address it is deleted; on disk it stays."""
    assert "100000 bytes where 99999 are expected" in error_of(download, size=99_999)
    message = error_of(download, md5="0" * 32)
    assert MD5 in message and "0" * 32 in message and "a.zip" in message
    assert not list(part.parent.iterdir())
    path = part.with_suffix("")
    path.write_bytes(BODY[:-1])
    web.asked.clear()
    for size in (SIZE, None):
        assert str(path) in error_of(download, size) and path.read_bytes() == BODY[:-1]
    assert web.asked == []


def test_a_server_that_sends_no_length(download, web, part):
    web.lengths = False
    assert download().read_bytes() == BODY
    part.with_suffix("").unlink()
    web.files["a.zip"] = BODY + bytes(downloads.CHUNK)
    assert "has more than 100000 bytes: not that file" in error_of(download)
    assert not part.with_suffix("").exists()


def test_errors_of_the_server(download, web, part):
    assert "404" in error_of(fetch, web.url("b"), part, md5=MD5) and len(web.asked) == 1
    assert "403" in error_of(download, states=[403]) and len(web.asked) == 2
    assert download(states=[503, 429, 500]).read_bytes() == BODY  # temporary ones


def test_a_web_page_leaves_the_part(web, tmp_path):
    (tmp_path / "file.part").write_bytes(b"half")
    web.files["file"], web.ranges, web.kind = b"<html>Log in</html>", False, "text/html"
    assert "sent a web page" in error_of(fetch, web.url("file"), tmp_path / "file", md5=MD5)
    assert (tmp_path / "file.part").read_bytes() == b"half"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a/b",
        "a/b",
        "http://",
        "http://a b/",
        "https://a:x/",
        "https://[a",
        "http://example.org/a.zip",
        "http://127.0.0.1@example.org/a.zip",
        "http://127.0.0.1.example.org/a.zip",
        "http://localhost:80@example.org/a.zip",
        "file:///etc/passwd",
    ],
)
def test_only_https_and_this_machine(tmp_path, url):
    message = error_of(fetch, url, tmp_path / "a.zip", md5=MD5)
    assert message == f"{url} can't be downloaded: not an https address"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["http://example.org/a.zip", "file:///etc/passwd"])
def test_redirections(web, tmp_path, to):
    web.files["b.zip"], web.leads["a.zip"], web.leads["c.zip"] = BODY, to, web.url("b.zip")
    message = error_of(fetch, web.url("a.zip"), tmp_path / "a.zip", md5=MD5)
    assert to in message and len(web.asked) == 1
    assert not list(tmp_path.iterdir())
    assert fetch(web.url("c.zip"), tmp_path / "c.zip", md5=MD5, size=SIZE).read_bytes() == BODY
    request = urllib.request.Request("https://example.org/b")  # from https to https only
    with pytest.raises(ValueError, match="redirects to http://127.0.0.1/a"):
        follow = downloads._Redirections().redirect_request
        follow(request, io.BytesIO(), 302, "", {}, "http://127.0.0.1/a")


def test_no_server(web, tmp_path):
    with socket.socket() as taken:  # bound and not listening
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/a.zip"
        assert url in error_of(fetch, url, tmp_path / "a.zip", md5=MD5)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written(download, web, part, tmp_path, monkeypatch):
    part.mkdir(parents=True)
    assert "a.zip.part can't be written" in error_of(download)
    (tmp_path / "file").write_bytes(b"")
    assert "file" in error_of(fetch, web.url("a.zip"), tmp_path / "file" / "a.zip", md5=MD5)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: type("", (), {"free": 2e9})())
    require_space(tmp_path, 2e9)
    assert "25.0 GB needed and 2.0 GB free" in error_of(require_space, tmp_path, 25e9)
