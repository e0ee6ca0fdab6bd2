"""What all tests share: compiled programs, and one tiny run from configuration to bundle."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling takes most of the tests' time, so LLVM optimises little, as in JAX's own tests, and XLA
# uses its older emitters and one code partition. Compiled programs are kept for one pytest run and
# its subprocesses.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Other versions of jaxlib, and libtpu, may not know these flags, and abort on them.
known = importlib.metadata.version("jaxlib").startswith("0.10.")
if known and not importlib.util.find_spec("libtpu"):
    os.environ.setdefault(
        "XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    )
_CACHE = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _CACHE = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ergl_jax_xla_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import dataclasses  # noqa: E402
import gc  # noqa: E402
import hashlib  # noqa: E402
import http.server  # noqa: E402
import io  # noqa: E402
import threading  # noqa: E402
import zipfile  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import soundfile  # noqa: E402


def pytest_unconfigure():
    if _CACHE:
        shutil.rmtree(_CACHE, ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def few_memory_maps():
    """Drops compiled programs where many have come together.

    Linux gives a process 65,530 memory maps, and a compiled program takes some of them: beyond, XLA
    crashes. The suite has more programs than that.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 20_000:
        import jax

        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def load_script():
    """Imports what no package holds, such as `data_prep/rank_events.py`, by its path."""

    def load_script(path):
        path = Path(__file__).resolve().parents[1] / path
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load_script


@dataclasses.dataclass(frozen=True)
class TinyRun:
    workdir: Path
    data_dir: Path
    results: dict  # what `train.train` returned

    def config(self, **overrides):
        """configs/test.py with this run's features, and fields such as data__num_events=3."""
        from configs import test
        from ergl_jax.config import Config

        fields = {name.replace("__", "."): value for name, value in overrides.items()}
        config = Config.from_dict(test.get_config().to_dict())
        return config.replace(**{"data.data_dir": str(self.data_dir)} | fields)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> TinyRun:
    """configs/test.py, trained to its end, uninterrupted. Not to be written to."""
    from ergl_jax.training import train

    base = tmp_path_factory.mktemp("tiny")
    run = TinyRun(base / "run", base / "data", {})
    return dataclasses.replace(run, results=train.train(run.config(), run.workdir))


class Web(http.server.ThreadingHTTPServer):
    """A server on this machine: what it has, what it was asked for, how it misbehaves."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []  # name and Range of each request
        self.ranges = True  # False: every answer is the whole file
        self.kind = "application/octet-stream"
        self.cuts: dict[str, list[int]] = {}  # name -> bytes after which the next answers break off
        self.stalls: dict[str, int] = {}  # name -> bytes after which its next answer stops for good
        self.states: dict[str, list[int]] = {}  # name -> HTTP errors that come first
        self.leads: dict[str, str] = {}  # name -> where its answer redirects to
        self.lengths = True  # False: no answer says how long it is

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def handle_error(self, request, client_address):
        # A client that hangs up is part of some tests; its trace would mix with what they capture.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        web, name, wanted = self.server, self.path[1:], self.headers.get("Range")
        web.asked.append((name, wanted))
        if web.states.get(name):
            return self.send_error(web.states[name].pop(0))
        if name in web.leads:
            self.send_response(302)
            self.send_header("Location", web.leads[name])
            return self.end_headers()
        if name not in web.files:
            return self.send_error(404)
        body, start = web.files[name], 0
        if wanted and web.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Type", web.kind)
        if web.lengths:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        cut = web.cuts[name].pop(0) if web.cuts.get(name) else None
        stall = web.stalls.pop(name, None)
        self.wfile.write(body[start:][: cut if stall is None else stall])
        if stall is not None:
            self.rfile.read()  # until the other side goes

    def log_message(self, *_):
        pass


@pytest.fixture
def web(monkeypatch):
    """A `Web`; downloads try again without a pause."""
    from ergl_jax import downloads

    monkeypatch.setattr(downloads, "PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Web() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def zip_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


@dataclasses.dataclass
class FakeTut:
    """TUT 2018 in miniature: its files, and the release that a `Web` offers of them."""

    web: Web
    members: dict[str, dict[str, bytes]]  # archive -> path -> content

    def publish(self):
        """Packs the members, puts them on the web and makes that release the one there is."""
        from ergl_jax.datasets import tut2018

        archives = []
        for part, members in self.members.items():
            name = f"{tut2018.FOLDER}.{part}.zip"
            body = self.web.files[name] = zip_of(
                {f"{tut2018.FOLDER}/{path}": content for path, content in members.items()}
            )
            md5 = hashlib.md5(body).hexdigest()
            archives.append(tut2018.Archive(self.web.url(name), len(body), md5))
        return tut2018.Release(tuple(archives), {"train": 24, "test": 12})


@pytest.fixture
def fake_tut(web, monkeypatch) -> FakeTut:
    """Three scenes, each of two clips at four training and two test locations, published."""
    from ergl_jax.datasets import tut2018

    rng, audio = np.random.default_rng(0), {}
    lists = {"fold1_train": "", "fold1_test": "", "fold1_evaluate": ""}
    for number, scene in enumerate(("airport", "metro_station", "tram")):
        for location in range(6):
            for segment in range(2):
                place = f"{('paris', 'vienna')[location % 2]}-{10 * number + location}"
                name = f"audio/{scene}-{place}-{segment}-a.wav"
                wave = io.BytesIO()
                noise = rng.uniform(-0.1, 0.1, (6400, 2))
                soundfile.write(wave, noise, 16000, format="WAV", subtype="PCM_24")
                audio[name] = wave.getvalue()
                if location < 4:
                    lists["fold1_train"] += f"{name}\t{scene}\n"
                else:
                    lists["fold1_test"] += f"{name}\n"
                    lists["fold1_evaluate"] += f"{name}\t{scene}\n"
    setup = {f"evaluation_setup/{name}.txt": text.encode() for name, text in lists.items()}
    halves = [dict(list(audio.items())[at::2]) for at in (0, 1)]
    fake = FakeTut(
        web,
        {
            "doc": {"README.md": b"A corpus."},
            "meta": {"meta.csv": b"filename\tscene_label\n"} | setup,
            "audio.1": halves[0],
            "audio.2": halves[1],
        },
    )
    monkeypatch.setattr(tut2018, "DEVELOPMENT", fake.publish())
    return fake
