"""Huge pages, in programs of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ergl_jax.memory import VALUE, VARIABLE

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import os, sys
print("start", os.getpid())
sys.stdout.flush()
from ergl_jax.memory import use_huge_pages
use_huge_pages()
block = bytearray(b"x" * (64 << 20))
pages = [line.split()[1] for line in open("/proc/self/smaps_rollup") if "AnonHuge" in line]
print("end", os.environ.get("GLIBC_TUNABLES"), int(pages[0]) >> 10, *sys.argv[1:])
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="of Linux")


def run(tmp_path, **environment):
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    rest = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py", "--two words", "ä"],
        env=rest | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split(maxsplit=1) for line in done.stdout.splitlines()]


@linux
def test_the_program_starts_once_more_as_it_was_called(tmp_path):
    first, second, end = run(tmp_path)
    assert first == second  # the same process
    tunables, mebibytes, arguments = end[1].split(maxsplit=2)
    assert (tunables, arguments) == (VALUE, "--two words ä")
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if setting.exists() and "[never]" not in setting.read_text(encoding="ascii"):
        assert int(mebibytes) >= 60


@linux
def test_a_value_that_is_set_stays(tmp_path):
    value = "glibc.malloc.hugetlb=0"
    (_, end) = run(tmp_path, **{VARIABLE: value})
    assert end[1].startswith(value)
