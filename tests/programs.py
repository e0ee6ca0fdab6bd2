"""Runs programs of this repository in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def python(*arguments, without=(), check=False, input="", **environment):
    """`python ARGUMENTS` in the repository, to its end; its output is text.

    It inherits all variables but those of `without`; `environment` sets others.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in without}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=inherited | {"PYTHONPATH": str(ROOT)} | environment,
        input=input,
        capture_output=True,
        text=True,
        check=check,
    )
