"""Compiled programs are kept in the user's cache directory, and in no other."""

import os
from pathlib import Path

import pytest
from programs import python

from ergl_jax import cache

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
    persistent = {name for name in os.environ if name.startswith("JAX_PERSISTENT")}
    without = {"XDG_CACHE_HOME", cache.VARIABLE, "HOME"} | persistent
    done = python("-W", warnings, "-c", PROGRAM, without=without, **environment)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.strip().split("|")


def files(directory):
    return [path for path in directory.rglob("*") if path.is_file()]


def test_a_program_is_found_again_and_a_broken_one_compiled_again(tmp_path):
    kept, hit, result = run(XDG_CACHE_HOME=str(tmp_path))
    assert Path(kept).parent == tmp_path / "ergl_jax" / "xla" and files(Path(kept))
    assert Path(kept).stat().st_mode & 0o777 == 0o700
    assert hit == "False"
    assert run(XDG_CACHE_HOME=str(tmp_path)) == [kept, "True", result]
    for file in Path(kept).rglob("*-cache"):
        file.write_bytes(b"\0" * 100)
    assert run("ignore", XDG_CACHE_HOME=str(tmp_path))[::2] == [kept, result]  # JAX warns


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
