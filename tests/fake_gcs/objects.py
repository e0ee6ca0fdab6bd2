"""The part of Google Cloud Storage's JSON interface that tensorstore asks, over gcsfs's directory.

An object's generation, which conditions of writes name, is its file's time of change.
"""

import http.server
import json
import os
import urllib.parse
from pathlib import Path


class Objects(http.server.ThreadingHTTPServer):
    """`root/bucket/a` is object a of the bucket; `asked` counts the requests by method."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Request)
        self.root, self.asked = Path(), {"GET": 0, "POST": 0}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Request(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer is head and body: else each waits 40 ms

    def parsed(self):
        """The method's count goes up; the bucket's directory, the object's name, the query."""
        self.server.asked[self.command] += 1
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        _, _, rest = url.path.partition("/storage/v1/b/")
        bucket, _, name = rest.partition("/o")
        return self.server.root / bucket, urllib.parse.unquote(name.lstrip("/")), query

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", len(body))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        bucket, name, query = self.parsed()
        if not name:
            prefix = query.get("prefix", "")
            files = [path for path in bucket.rglob("*") if path.is_file()]
            names = sorted(path.relative_to(bucket).as_posix() for path in files)
            items = [resource(bucket, each) for each in names if each.startswith(prefix)]
            return self.answer(200, json.dumps({"items": items}).encode())
        try:
            body, generation = (bucket / name).read_bytes(), of(bucket / name)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return self.answer(404)
        if query.get("ifGenerationNotMatch") == str(generation):
            return self.answer(304)
        if query.get("alt") != "media":
            return self.answer(200, json.dumps(resource(bucket, name)).encode())
        status, headers = 200, {"x_goog_generation": generation}
        if given := self.headers.get("Range"):
            first, _, last = given.removeprefix("bytes=").partition("-")
            start = int(first) if first else len(body) - int(last)
            stop = int(last) + 1 if first and last else len(body)
            headers["Content_Range"] = f"bytes {start}-{min(stop, len(body)) - 1}/{len(body)}"
            status, body = 206, body[start:stop]
        self.answer(status, body, **headers)

    def do_POST(self):
        bucket, _, query = self.parsed()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = bucket / query["name"]
        if "ifGenerationMatch" in query and query["ifGenerationMatch"] != str(of(path)):
            return self.answer(412)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.{id(self)}.writing")
        beside.write_bytes(body)
        os.replace(beside, path)
        self.answer(200, json.dumps(resource(bucket, query["name"])).encode())

    def log_message(self, *_):
        pass


def of(path: Path) -> int:
    """A file's generation; 0 for none."""
    return path.stat().st_mtime_ns if path.is_file() else 0


def resource(bucket: Path, name: str) -> dict:
    size = (bucket / name).stat().st_size
    return {"name": name, "generation": str(of(bucket / name)), "size": str(size)}
