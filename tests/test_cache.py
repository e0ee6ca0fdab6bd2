"""Compiled programs are kept in the user's cache directory, and in no other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ergl_jax import cache

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import jax, jax.numpy as jnp
from ergl_jax.cache import use_compilation_cache
kept = use_compilation_cache()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
hits = []
jax.monitoring.register_event_listener(
    lambda name, **_: hits.append(name) if name.endswith("/cache_hits") else None
)
y = jax.jit(lambda x: jnp.sin(x @ x.T).sum())(jnp.linspace(0, 1, 4096).reshape(64, 64))
print(kept, len(hits) > 0, float(y).hex(), sep="|")
"""


def run(warnings="error", **environment):
    """What PROGRAM prints: where, whether something was found there, and its result."""
    ours = {"XDG_CACHE_HOME", cache.VARIABLE, "HOME"} | {
        name for name in os.environ if name.startswith("JAX_PERSISTENT")
    }
    rest = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        [sys.executable, "-W", warnings, "-c", PROGRAM],
        env=rest | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.strip().split("|")


def files(directory):
    return [path for path in directory.rglob("*") if path.is_file()]


def test_a_program_is_found_again_and_computes_the_same(tmp_path):
    kept, hit, result = run(XDG_CACHE_HOME=str(tmp_path))
    assert Path(kept).parent == tmp_path / "ergl_jax" / "xla" and files(Path(kept))
    assert Path(kept).stat().st_mode & 0o777 == 0o700
    assert hit == "False"
    assert run(XDG_CACHE_HOME=str(tmp_path)) == [kept, "True", result]


def test_without_the_variable_it_is_in_the_home(tmp_path):
    kept, *_ = run(HOME=str(tmp_path))
    assert Path(kept).parent == tmp_path / ".cache" / "ergl_jax" / "xla"


def test_a_directory_that_is_set_stays(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    assert run(XDG_CACHE_HOME=str(here), **{cache.VARIABLE: str(there)})[0] == "None"
    assert files(there) and not here.exists()


def test_where_nothing_can_be_written_nothing_breaks(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert run(XDG_CACHE_HOME=str(tmp_path / "file"))[:2] == ["None", "False"]


def test_a_broken_entry_is_compiled_again(tmp_path):
    kept, _, result = run(XDG_CACHE_HOME=str(tmp_path))
    for file in files(Path(kept)):
        if file.name.endswith("-cache"):
            file.write_bytes(b"\0" * 100)
    assert run("ignore", XDG_CACHE_HOME=str(tmp_path))[::2] == [kept, result]  # JAX warns


@pytest.mark.skipif(not cache.CPU.exists(), reason="of Linux")
def test_each_kind_of_processor_has_its_own(tmp_path, monkeypatch):
    """JAX's key is the same on all, and a program of another may not run here."""
    mine = cache._processor()
    assert mine == cache._processor()
    text = cache.CPU.read_text(encoding="utf-8")
    monkeypatch.setattr(cache, "CPU", tmp_path / "cpuinfo")
    # Clock rates change from one look to the next.
    cache.CPU.write_text(text.replace("cpu MHz", "cpu MHz\t: 1\nold"), encoding="utf-8")
    assert cache._processor() == mine
    cache.CPU.write_text(text.replace(" sse2", " ", 1).replace(" asimd", " "), encoding="utf-8")
    assert cache._processor() != mine
