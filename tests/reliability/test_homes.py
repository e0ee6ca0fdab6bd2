"""Programs run by a user id without a name or a home directory, as in a container."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


# A user id without a name, to whom root's files still belong.
NOBODY = ["unshare", "--user", "--map-user=12345", "--map-group=12345"]


@pytest.fixture
def place(tiny, tmp_path):
    """A directory with a bundle, a recording and a place for temporary files."""
    if not shutil.which("unshare") or subprocess.run([*NOBODY, "true"]).returncode:
        pytest.skip("no user namespaces")
    shutil.copytree(tiny.workdir / "bundle", tmp_path / "bundle")
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", rng.normal(0, 0.1, 32000), 16000)
    (tmp_path / "tmp").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("command", "home"), [("classify", "/dev/null/none"), ("explain", None), ("doctor", None)]
)
def test_an_unknown_user_without_a_home(place, command, home):
    arguments = {
        "classify": [place / "a.wav"],
        "explain": [place / "a.wav", f"--out={place / 'out'}"],
        "doctor": [],
    }[command]
    away = ("HOME", "USER", "LOGNAME", "XDG_", "JAX_COMPILATION", "JAX_PERSISTENT", "MPL")
    environment = {name: x for name, x in os.environ.items() if not name.startswith(away)}
    environment |= {"PYTHONPATH": str(ROOT), "TMPDIR": str(place / "tmp")}
    done = subprocess.run(
        [
            *(*NOBODY, sys.executable, "-m", "ergl_jax", command),
            f"--bundle={place / 'bundle'}",
            *arguments,
        ],
        cwd=ROOT,
        env=environment | ({"HOME": home} if home else {}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # Matplotlib reports that it looks for fonts if that takes more than five seconds.
    (line,) = [line for line in done.stderr.splitlines() if "font cache" not in line]
    assert line.startswith("note: no writable cache directory: caching in ")
    assert str(place / "tmp" / "ergl_jax-12345") in line
