"""Downloads from a local server: whole, interrupted, resumed, wrong."""

import hashlib
import http.server
import threading

import numpy as np
import pytest

from ergl_jax import downloads
from ergl_jax.errors import InputError

CONTENT = np.random.default_rng(0).bytes(3_000_001)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT at any path but /none; counts the bytes it sent and keeps the ranges asked."""

    ranges_work = True  # whether it knows Range
    stop_after = None  # bytes of a body, after which it hangs up


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        if self.path == "/none":
            return self.send_error(404)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if not self.server.ranges_work:
            start = 0
        elif start >= len(CONTENT):
            return self.send_error(416)
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.stop_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as server:
        server.ranges = []
        server.url = f"http://127.0.0.1:{server.server_port}/file"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_file_comes_whole_and_shows_progress(server, tmp_path, capfd):
    path = tmp_path / "deep" / "file.bin"
    assert downloads.fetch(server.url, path, md5=MD5, size=len(CONTENT)) == path
    assert path.read_bytes() == CONTENT
    assert [other.name for other in path.parent.iterdir()] == ["file.bin"]
    assert "3.00M/3.00M" in capfd.readouterr().err
    downloads.fetch(server.url, path, md5=MD5)  # it is there: nothing is asked for
    assert server.ranges == [None]


@pytest.mark.parametrize("ranges_work", [True, False])
def test_an_interrupted_one_goes_on(server, tmp_path, ranges_work):
    path = tmp_path / "file.bin"
    server.stop_after, server.ranges_work = 1_234_567, ranges_work
    with pytest.raises(InputError, match="the same command goes on"):
        downloads.fetch(server.url, path, md5=MD5)
    assert not path.exists()
    part = tmp_path / "file.bin.part"
    assert part.read_bytes() == CONTENT[:1_234_567]
    server.stop_after = None
    downloads.fetch(server.url, path, md5=MD5)
    assert path.read_bytes() == CONTENT and not part.exists()
    assert server.ranges == [None, "bytes=1234567-"]


def test_one_that_had_come_whole_is_taken(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    downloads.fetch(server.url, tmp_path / "file.bin", md5=MD5)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"md5": "0" * 32}, f"has the MD5 {MD5}, not {'0' * 32}"),
        ({"md5": MD5, "size": 3}, "has 3000001 bytes, not 3"),
    ],
)
def test_a_wrong_one_is_refused_and_deleted(server, tmp_path, expected, message):
    with pytest.raises(InputError, match=message):
        downloads.fetch(server.url, tmp_path / "file.bin", **expected)
    assert not list(tmp_path.iterdir())


def test_a_part_of_something_else_is_found_out(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    with pytest.raises(InputError, match="has the MD5"):
        downloads.fetch(server.url, tmp_path / "file.bin", md5=MD5)
    downloads.fetch(server.url, tmp_path / "file.bin", md5=MD5)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_wrong_file_that_is_there_is_named_and_left(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match=f"{path} has the MD5 .*another file"):
        downloads.fetch("http://127.0.0.1:9/file", path, md5=MD5)
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/file", "/none"])
def test_no_server_and_no_such_file(server, tmp_path, url):
    url = server.url.replace("/file", "/none") if url == "/none" else url
    with pytest.raises(InputError, match="404 Not Found|refused"):
        downloads.fetch(url, tmp_path / "file.bin", md5=MD5)
    assert not list(tmp_path.iterdir())
