"""Ctrl-C ends a program with one line, and files that are written together stay together."""

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ergl_jax import audio
from ergl_jax.errors import command
from ergl_jax.files import atomic_write_together

ROOT = Path(__file__).resolve().parents[3]


def raises_when_deleted(error):
    """Python reports errors of destructors to sys.unraisablehook, and continues."""

    class Raises:
        def __del__(self):
            raise error

    Raises()


@pytest.mark.parametrize(
    ("resumes", "end"), [(True, "; the same command"), (False, "\n"), (lambda: False, "\n")]
)
def test_an_interrupt_in_a_destructor_is_not_lost(capsys, resumes, end):
    @command(resumes=resumes)
    def main():
        raises_when_deleted(KeyboardInterrupt)
        time.sleep(10)
        pytest.fail("not interrupted")

    before = signal.getsignal(signal.SIGINT)
    assert main() == 130
    assert capsys.readouterr().err.startswith(f"interrupted{end}")
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_module_is_imported_to_its_end_before_a_signal_stops_the_program(
    number, tmp_path, monkeypatch
):
    name, done = f"stopped_by_{number}", []
    (tmp_path / f"{name}.py").write_text(
        f"import os\nos.kill(os.getpid(), {number})\nx = 'whole'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    @command(resumes=False)
    def main():
        done.append(importlib.import_module(name).x)
        time.sleep(10)
        pytest.fail("not stopped")

    assert main() == 128 + number and done == ["whole"]


def test_other_errors_in_destructors_are_reported_as_usual(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: seen.append(unraisable.exc_type))
    assert command(resumes=False)(lambda: raises_when_deleted(ZeroDivisionError) or 0)() == 0
    assert seen == [ZeroDivisionError]


def test_libsndfile_never_calls_back_into_python(tmp_path, monkeypatch):
    """There, an interrupt would be lost."""
    path = tmp_path / "a.flac"
    soundfile.write(path, np.full(1000, 0.5), 16000)
    calls_back = soundfile.SoundFile, "_init_virtual_io"
    monkeypatch.setattr(*calls_back, lambda *_: pytest.fail("libsndfile must read it by itself"))
    assert len(audio.read_audio(path, 16000)) == 1000


@pytest.mark.slow
@pytest.mark.parametrize("script", ["run.py", "data_prep/prepare_dataset.py"])
def test_an_interrupt_during_slow_imports_is_one_line(tmp_path, script):
    (tmp_path / "jax.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(20)\n"
    )
    done = subprocess.run(
        [sys.executable, str(ROOT / script)],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}", "GLIBC_TUNABLES": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 130 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("interrupted")


COMPILES = """
import os, signal, sys, threading
from ergl_jax.errors import command, leave_at_once
leave_at_once()
import jax, jax.numpy as jnp

def long(x):
    for _ in range(60):
        x = jnp.sin(x @ x) + jnp.cos(x)
    return x.sum()

@command(resumes=False)
def main():
    lowered = jax.jit(jax.grad(long)).lower(jnp.ones((8, 8)))
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    lowered.compile()
    print("compiled", flush=True)

sys.exit(main())
"""


def test_a_program_that_is_stopped_while_jax_compiles_exits_at_once():
    """XLA goes on in a thread, and would crash once Python deletes JAX's client."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILES],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_ENABLE_COMPILATION_CACHE": "false"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "stopped by SIGTERM\n")
    assert done.stdout == ""  # it was stopped before


def test_files_of_two_writers_are_not_mixed(tmp_path, monkeypatch):
    names, replace, done = [f"{i}.txt" for i in range(4)], os.replace, []

    def write(who: str):
        with atomic_write_together(tmp_path) as folder:
            for name in names:
                (folder / name).write_text(who)

    other = threading.Thread(target=write, args=("b",))

    def replace_slowly(*paths):
        if threading.current_thread() is not other:
            done.append(paths)
            if len(done) == 3:  # halfway, the other writer comes
                other.start()
                other.join(0.3)
        replace(*paths)

    monkeypatch.setattr(os, "replace", replace_slowly)
    write("a")
    other.join()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(names, "b")
