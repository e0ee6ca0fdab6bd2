"""Compiled programs are kept in the user's cache directory, and in no other."""

import os
from pathlib import Path

import pytest
from programs import python

from ergl_jax import cache

PROGRAM = """
import jax, jax.numpy as jnp
from ergl_jax.cache import use_caches
kept = use_caches()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
hits = []
jax.monitoring.register_event_listener(
    lambda name, **_: hits.append(name) if name.endswith("/cache_hits") else None
)
y = jax.jit(lambda x: jnp.sin(x @ x.T).sum())(jnp.linspace(0, 1, 4096).reshape(64, 64))
print(kept, len(hits) > 0, float(y).hex(), sep="|")
"""


def run(warnings="error", note="", **environment):
    """What PROGRAM prints: where, whether something was found there, and its result.

    `note` is in the one line on standard error, or there is none.
    """
    persistent = {name for name in os.environ if name.startswith("JAX_PERSISTENT")}
    without = {"XDG_CACHE_HOME", cache.VARIABLE, "HOME"} | persistent
    done = python("-W", warnings, "-c", PROGRAM, without=without, **environment)
    assert done.returncode == 0 and done.stderr.count("\n") == bool(note), done.stderr
    assert note in done.stderr
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


@pytest.mark.parametrize("home", ["none", "file"])
def test_where_nothing_can_be_written_a_temporary_directory_is_used(tmp_path, home):
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "tmp").mkdir()
    environment = {"TMPDIR": str(tmp_path / "tmp"), "HOME": str(tmp_path / "file" / home)}
    kept, hit, result = run(note="note: no writable cache directory: caching in ", **environment)
    assert Path(kept).is_relative_to(tmp_path / "tmp") and files(Path(kept)) and hit == "False"
    (mine,) = (tmp_path / "tmp").iterdir()
    assert mine.stat().st_mode & 0o777 == 0o700
    assert run(note="note: ", **environment) == [kept, "True", result]
    if os.getuid() == 0:  # one that another user has made is not trusted
        os.chown(mine, 12345, 12345)
        assert not Path(run(note="note: ", **environment)[0]).is_relative_to(mine)


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
