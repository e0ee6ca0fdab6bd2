"""Ctrl-C ends a program in a line, wherever it falls; files written at once are one writer's."""

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


class Interrupted:
    """Its destructor is where Ctrl-C falls: Python can only report that, and goes on."""

    def __del__(self):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("resumes", "words"), [(True, "; the same command goes on"), (False, "\n")]
)
def test_an_interrupt_that_python_drops_comes_again(capsys, resumes, words):
    @command(resumes=resumes)
    def main():
        Interrupted()
        time.sleep(10)

    start = time.monotonic()
    assert main() == 130
    assert time.monotonic() - start < 9  # it did not sleep to its end
    assert capsys.readouterr().err.startswith(f"interrupted{words}")


def test_other_things_that_python_drops_are_reported_as_ever():
    seen = []

    class Broken:
        def __del__(self):
            raise ZeroDivisionError

    @command(resumes=False)
    def main():
        Broken()
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", lambda unraisable: seen.append(unraisable.exc_type))
        assert main() == 0
        assert sys.unraisablehook.__name__ == "<lambda>"
    assert seen == [ZeroDivisionError]


def test_libsndfile_never_calls_back_into_python(tmp_path, monkeypatch):
    """It would swallow an interrupt that falls there."""
    path = tmp_path / "a.flac"
    soundfile.write(path, np.full(1000, 0.5), 16000)

    def refuse(*_):
        raise AssertionError("libsndfile is to read the file by itself")

    monkeypatch.setattr(soundfile.SoundFile, "_init_virtual_io", refuse)
    assert len(audio.read_audio(path, 16000)) == 1000


@pytest.mark.parametrize("script", ["run.py", "data_prep/prepare_dataset.py"])
def test_an_interrupt_during_the_first_imports_is_a_line(tmp_path, script):
    """The first import after the program has begun waits, and the interrupt falls there."""
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
    assert done.stderr.splitlines() == ["interrupted"] or done.stderr.startswith("interrupted;")


def test_files_written_by_two_at_once_are_all_one_s(tmp_path, monkeypatch):
    names, replace, done = [f"{i}.txt" for i in range(4)], os.replace, []

    def write(who: str):
        with atomic_write_together(tmp_path) as beside:
            for name in names:
                (beside / name).write_text(who)

    other = threading.Thread(target=write, args=("b",))

    def replace_slowly(*paths):
        if threading.current_thread() is not other:
            done.append(paths)
            if len(done) == 3:  # halfway, the other one comes, and ends if it isn't kept waiting
                other.start()
                other.join(0.3)
        replace(*paths)

    monkeypatch.setattr(os, "replace", replace_slowly)
    write("a")
    other.join()
    assert [(tmp_path / name).read_text() for name in names] == ["b"] * 4
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_an_exception_leaves_all_old_files(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write_together(tmp_path) as beside:
        (beside / "a").write_text("new")
        raise ZeroDivisionError
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_ctrl_c_is_as_before_when_a_command_has_ended():
    before = signal.getsignal(signal.SIGINT)
    assert command(resumes=False)(lambda: 0)() == 0
    assert signal.getsignal(signal.SIGINT) is before
