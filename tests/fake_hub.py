"""A stand-in of the Hugging Face Hub: the part of its HTTP interface that huggingface_hub needs.

Requests and answers are those of a model's repository: create, info, branch, preupload, LFS
batch, commit, resolve.
"""

import base64
import dataclasses
import hashlib
import http.server
import json
import re
import urllib.parse

USER, TOKEN, STRANGER = "me", "hf_mine", "hf_another"
REPOSITORY = r"(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)"


@dataclasses.dataclass
class Repository:
    """Commits by their hash, each name -> content, and the branches' latest."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict)
    branches: dict[str, str] = dataclasses.field(default_factory=dict)
    messages: list[str] = dataclasses.field(default_factory=list)

    def commit(self, files: dict[str, bytes], branch: str = "main", message: str = "") -> str:
        old = self.commits.get(self.branches.get(branch, ""), {})
        sha = hashlib.sha1(f"{id(self)} {len(self.commits)}".encode()).hexdigest()  # noqa: S324
        self.commits[sha], self.branches[branch] = {**old, **files}, sha
        self.messages.append(message)
        return sha

    def sha(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.branches.get(revision)


class Hub(http.server.ThreadingHTTPServer):
    """Its repositories by OWNER/NAME; `asked` has the method and path of each request."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Request)
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}  # LFS, by SHA-256
        self.asked: list[str] = []
        self.lfs: tuple[str, ...] = ()  # names of files that are uploaded as LFS
        self.broken = 0  # the status of every answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Refusal(Exception):
    """An error of the Hub: status, its code, its message."""


class _Request(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_request(self):
        self.server.asked.append(f"{self.command} {self.path}")
        path = urllib.parse.urlsplit(self.path).path
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        while self.headers.get("Transfer-Encoding") == "chunked":
            size = int(self.rfile.readline(), 16)
            self.body += self.rfile.read(size)
            self.rfile.readline()
            if not size:
                break
        try:
            if self.server.broken:
                raise Refusal(self.server.broken, "", "the server is ill")
            for (method, pattern), answer in ROUTES.items():
                match = re.fullmatch(pattern, path)
                if match and self.command in method.split():
                    found = {x: urllib.parse.unquote(y) for x, y in match.groupdict().items()}
                    return answer(self, **found)
            raise Refusal(404, "", "no such page")
        except Refusal as refusal:
            status, code, message = refusal.args
            self.answer(status, {"error": message}, X_Error_Code=code, X_Error_Message=message)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request  # noqa: N815

    def answer(self, status, body, **headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": len(content)} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    @property
    def token(self):
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def repository(self, owner, name, *, write=False, gated=True) -> Repository:
        found = self.server.repositories.get(f"{owner}/{name}")
        mine = self.token == TOKEN and owner == USER
        if write and not self.token:
            raise Refusal(401, "", "Invalid username or password.")
        if not found or found.private and not mine:
            raise Refusal(404 if self.token else 401, "RepoNotFound", "Repository not found")
        if found.gated and gated and not mine:
            raise Refusal(403, "GatedRepo", "Access to this model is restricted")
        if write and not mine:
            raise Refusal(403, "", "You don't have the rights to write here")
        return found

    def create(self):
        wanted = json.loads(self.body)
        owner = wanted["organization"]
        if not self.token:
            raise Refusal(401, "", "Invalid username or password.")
        if self.token != TOKEN or owner != USER:
            raise Refusal(403, "", f"You don't have the rights to create a model for {owner}")
        name = f"{owner}/{wanted['name']}"
        status = 409 if name in self.server.repositories else 200
        if status == 200:
            private = wanted.get("private") or wanted.get("visibility") == "private"
            made = self.server.repositories[name] = Repository(bool(private))
            made.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        self.answer(status, {"url": f"{self.server.url}/{name}", "error": "You have it already"})

    def info(self, owner, name, revision="main"):
        found, name = self.repository(owner, name, gated=False), f"{owner}/{name}"
        sha = found.sha(revision)
        if not sha:
            raise Refusal(404, "RevisionNotFound", "Invalid rev id")
        self.answer(200, {"id": name, "sha": sha, "private": found.private})

    def branch(self, owner, name, branch):
        found = self.repository(owner, name, write=True)
        exists = branch in found.branches
        found.branches.setdefault(branch, found.branches["main"])
        self.answer(409 if exists else 200, {"error": "exists"})

    def validate(self):
        text = json.loads(self.body)["content"]
        valid = text.startswith("---\n")
        problem = [] if valid else [{"message": "no metadata"}]
        self.answer(200 if valid else 400, {"errors": problem, "warnings": []})

    def preupload(self, owner, name, revision):
        self.repository(owner, name, write=True)
        paths = [file["path"] for file in json.loads(self.body)["files"]]
        modes = {path: "lfs" if path in self.server.lfs else "regular" for path in paths}
        files = [{"path": x, "uploadMode": y, "shouldIgnore": False} for x, y in modes.items()]
        self.answer(200, {"files": files})

    def batch(self, owner, name):
        self.repository(owner, name, write=True)
        objects = [
            {"oid": x["oid"], "size": x["size"]}
            | {"actions": {"upload": {"href": f"{self.server.url}/lfs/{x['oid']}"}}}
            for x in json.loads(self.body)["objects"]
        ]
        self.answer(200, {"transfer": "basic", "objects": objects})

    def lfs(self, oid):
        if self.command == "PUT":
            assert _oid(self.body) == oid
            self.server.objects[oid] = self.body
            return self.answer(200, b"")
        assert not self.token, "a login is not sent to the storage"
        self.answer(200, self.server.objects[oid])

    def commit(self, owner, name, revision):
        found = self.repository(owner, name, write=True)
        if not found.sha(revision):
            raise Refusal(404, "RevisionNotFound", "Invalid rev id")
        files, message = {}, ""
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
        sha = found.commit(files, revision, message)
        url = f"{self.server.url}/{owner}/{name}/commit/{sha}"
        self.answer(200, {"success": True, "commitOid": sha, "commitUrl": url})

    def resolve(self, owner, name, revision, path):
        found = self.repository(owner, name)
        sha = found.sha(revision)
        if not sha:
            raise Refusal(404, "RevisionNotFound", "Invalid rev id")
        content = found.commits[sha].get(path)
        if content is None:
            raise Refusal(404, "EntryNotFound", "Entry not found")
        oid = _oid(content)
        headers = {"X_Repo_Commit": sha, "ETag": f'"{oid}"'}
        if path not in self.server.lfs:
            return self.answer(200, content, **headers)
        self.server.objects[oid] = content
        # Another host, as the Hub's storage is, which must not see the login.
        storage = self.server.url.replace("127.0.0.1", "localhost")
        linked = {"X_Linked_Etag": f'"{oid}"', "X_Linked_Size": len(content)}
        self.answer(302, b"", Location=f"{storage}/lfs/{oid}", **headers, **linked)

    def log_message(self, *_):
        pass


def _oid(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


_API = f"/api/models/{REPOSITORY}"
ROUTES = {
    ("POST", "/api/repos/create"): _Request.create,
    ("POST", "/api/validate-yaml"): _Request.validate,
    ("GET", _API): _Request.info,
    ("GET", f"{_API}/revision/(?P<revision>[^/]+)"): _Request.info,
    ("POST", f"{_API}/branch/(?P<branch>[^/]+)"): _Request.branch,
    ("POST", f"{_API}/preupload/(?P<revision>[^/]+)"): _Request.preupload,
    ("POST", f"{_API}/commit/(?P<revision>[^/]+)"): _Request.commit,
    ("POST", rf"/{REPOSITORY}\.git/info/lfs/objects/batch"): _Request.batch,
    ("GET HEAD", f"/{REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<path>.+)"): _Request.resolve,
    ("GET HEAD PUT", r"/lfs/(?P<oid>\w+)"): _Request.lfs,
}
