"""Downloads from a server that misbehaves: resumed, checked, whole or absent."""

import errno
import hashlib
import io
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from ergl_jax import downloads
from ergl_jax.downloads import fetch, require_space, verify
from ergl_jax.errors import InputError

BODY = np.random.default_rng(0).bytes(100_000)
SIZE = len(BODY)
MD5 = hashlib.md5(BODY).hexdigest()


@pytest.fixture
def offer(web, tmp_path):
    """Fetches a file of BODY from a server with the given faults."""
    web.files["a.zip"] = BODY

    def offer(size=SIZE, md5=MD5, **faults):
        for name, value in faults.items():
            setattr(web, name, value if name == "ranges" else {"a.zip": value})
        return fetch(web.url("a.zip"), tmp_path / "deep" / "a.zip", md5=md5, size=size)

    return offer


def error_of(function, *arguments, **keywords):
    with pytest.raises(InputError) as caught:
        function(*arguments, **keywords)
    message = str(caught.value)
    assert "\n" not in message
    return message


def ranges(web):
    return [wanted for _, wanted in web.asked]


@pytest.mark.parametrize("size", [SIZE, None])
def test_a_file_arrives_whole_and_nothing_else(offer, web, tmp_path, size):
    path = offer(size)
    assert path.read_bytes() == BODY and list((tmp_path / "deep").iterdir()) == [path]
    offer(size)
    assert ranges(web) == [None]  # the second time it was there


@pytest.mark.parametrize("size", [SIZE, None])
def test_a_broken_connection_is_taken_up_where_it_broke(offer, web, size):
    assert offer(size, cuts=[30_000, 1, 0]).read_bytes() == BODY
    assert ranges(web) == [None, "bytes=30000-", "bytes=30001-", "bytes=30001-"]


def test_any_sequence_of_breaks_gives_the_same_file(offer, web, tmp_path):
    rng = np.random.default_rng(1)
    for _ in range(10):
        path = offer(cuts=rng.integers(1, 60_000, 3).tolist())
        assert path.read_bytes() == BODY
        path.unlink()


def test_a_later_call_goes_on_from_the_part(offer, web, tmp_path):
    message = error_of(offer, cuts=[40_000] + [0] * downloads.ATTEMPTS)
    assert "broke off after 40000 of 100000" in message and "goes on after 40000" in message
    assert (tmp_path / "deep" / "a.zip.part").read_bytes() == BODY[:40_000]
    assert not (tmp_path / "deep" / "a.zip").exists()
    web.asked.clear()
    assert offer(cuts=[]).read_bytes() == BODY
    assert ranges(web) == ["bytes=40000-"]


def test_a_killed_process_leaves_what_the_next_goes_on_from(offer, web, tmp_path):
    web.stalls["a.zip"] = 60_000
    part = tmp_path / "deep" / "a.zip.part"
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
        assert f"{part}: another process is at it" in error_of(offer)
        assert part.stat().st_size == 60_000
    finally:
        killed.kill()
        killed.wait()
    assert offer().read_bytes() == BODY
    assert ranges(web) == [None, "bytes=60000-"]


def test_another_process_that_ends_just_before_this_one_begins(offer, web, tmp_path, monkeypatch):
    part = tmp_path / "deep" / "a.zip.part"
    monkeypatch.setattr(downloads.fcntl, "flock", lambda *_: part.unlink())
    assert "another process" in error_of(offer) and web.asked == []


def test_a_file_system_without_locks(offer, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(downloads.fcntl, "flock", none)
    assert offer().read_bytes() == BODY


def test_a_server_without_ranges_starts_anew(offer, web):
    assert offer(ranges=False, cuts=[70_000]).read_bytes() == BODY
    assert ranges(web) == [None, "bytes=70000-"]


def test_it_gives_up_where_nothing_new_arrives(offer, web):
    assert "a.zip" in error_of(offer, ranges=False, cuts=[70_000] * 20)
    assert len(web.asked) == downloads.ATTEMPTS


def test_a_complete_part_needs_no_request(offer, web, tmp_path):
    (tmp_path / "deep").mkdir()
    part = tmp_path / "deep" / "a.zip.part"
    part.write_bytes(BODY)
    assert offer().read_bytes() == BODY and web.asked == []
    (tmp_path / "deep" / "a.zip").rename(part)
    assert offer(size=None).read_bytes() == BODY  # the server says 416
    assert ranges(web) == [f"bytes={SIZE}-"]


@pytest.mark.parametrize("left", [BODY + b"more", b"x" * 50_000])
def test_a_part_of_another_file_does_no_lasting_harm(offer, tmp_path, left):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.zip.part").write_bytes(left)
    if len(left) < SIZE:  # only the checksum can tell
        assert "md5" in error_of(offer)
        assert not list((tmp_path / "deep").iterdir())
    assert offer().read_bytes() == BODY


def test_another_file_at_the_address(offer, tmp_path):
    assert "100000 bytes where 99999 are expected" in error_of(offer, size=99_999)
    wrong = "0" * 32
    message = error_of(offer, md5=wrong)
    assert MD5 in message and wrong in message and "a.zip" in message
    assert not list((tmp_path / "deep").iterdir())


def test_a_file_that_is_there_and_wrong_is_named_and_left(offer, web, tmp_path):
    path = tmp_path / "deep" / "a.zip"
    path.parent.mkdir()
    path.write_bytes(BODY[:-1])
    for size in (SIZE, None):
        assert str(path) in error_of(offer, size) and path.read_bytes() == BODY[:-1]
    assert web.asked == []
    verify(path, md5=hashlib.md5(BODY[:-1]).hexdigest())


def test_errors_of_the_server(offer, web):
    assert "404" in error_of(fetch, web.url("b"), "never", md5=MD5)
    assert len(web.asked) == 1  # asking again is no use
    assert "403" in error_of(offer, states=[403])
    assert offer(states=[503, 429, 500]).read_bytes() == BODY  # these may pass
    assert len(web.asked) == 1 + 1 + 4


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a/b",
        "htps://a/b",
        "a/b",
        "http://",
        "http:///b",
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
def test_an_address_that_is_none_is_not_asked_again(tmp_path, monkeypatch, url):
    monkeypatch.setattr(downloads.time, "sleep", lambda _: pytest.fail("asked again"))
    message = error_of(fetch, url, tmp_path / "a.zip", md5=MD5)
    assert message == f"{url} is not an address of https"
    assert not list(tmp_path.iterdir())


def test_no_server(web, tmp_path):
    with socket.socket() as taken:  # bound and not listening
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/a.zip"
        assert url in error_of(fetch, url, tmp_path / "a.zip", md5=MD5)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(offer, web, tmp_path):
    (tmp_path / "deep" / "a.zip.part").mkdir(parents=True)
    assert "a.zip.part can't be written" in error_of(offer)
    (tmp_path / "file").write_bytes(b"")
    assert "file" in error_of(fetch, web.url("a.zip"), tmp_path / "file" / "a.zip", md5=MD5)


def test_space(tmp_path, monkeypatch):
    require_space(tmp_path, 1)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: type("", (), {"free": 2e9})())
    require_space(tmp_path, 2e9)
    message = error_of(require_space, tmp_path, 25e9)
    assert str(tmp_path) in message and "25.0 GB needed" in message and "2.0 GB free" in message


def test_a_web_page_in_place_of_the_file_leaves_what_has_come(web, tmp_path):
    (tmp_path / "file.part").write_bytes(b"half")
    web.files["file"], web.ranges, web.kind = b"<html>Log in</html>", False, "text/html"
    with pytest.raises(InputError, match="answered with a web page"):
        fetch(web.url("file"), tmp_path / "file", md5="0" * 32)
    assert (tmp_path / "file.part").read_bytes() == b"half"


@pytest.mark.parametrize(
    "to", ["http://example.org/a.zip", "file:///etc/passwd", "ftp://example.org/a.zip"]
)
def test_a_redirection_to_no_address_of_https_is_not_followed(web, tmp_path, to):
    web.leads["a.zip"] = to
    message = error_of(fetch, web.url("a.zip"), tmp_path / "a.zip", md5=MD5)
    assert message.startswith(f"{web.url('a.zip')} ") and to in message
    assert len(web.asked) == 1 and not list(tmp_path.iterdir())


def test_a_redirection_to_where_it_may_go_is_followed(web, tmp_path):
    web.files["b.zip"], web.leads["a.zip"] = BODY, web.url("b.zip")
    assert fetch(web.url("a.zip"), tmp_path / "a.zip", md5=MD5, size=SIZE).read_bytes() == BODY


@pytest.mark.parametrize("to", ["http://127.0.0.1/a", "http://example.org/a", "/a"])
def test_https_leads_to_https_alone(to):
    request = urllib.request.Request("https://example.org/b")
    to = urllib.parse.urljoin(request.full_url, to)
    follow = downloads._Redirections().redirect_request
    if to.startswith("https:"):
        assert follow(request, io.BytesIO(), 302, "", {}, to).full_url == to
    else:
        assert f"leads to {to}, " in error_of(follow, request, io.BytesIO(), 302, "", {}, to)


def test_a_server_that_does_not_say_how_much_is_stopped_at_the_size(offer, web, tmp_path):
    web.lengths = False
    assert offer().read_bytes() == BODY
    (tmp_path / "deep" / "a.zip").unlink()
    web.files["a.zip"] = BODY + bytes(downloads.CHUNK)
    assert "has more than 100000 bytes: not that file" in error_of(offer)
    assert not (tmp_path / "deep" / "a.zip").exists()
