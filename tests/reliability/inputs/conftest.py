"""The public commands, run in this process, and what a wrong input to one must come to."""

import dataclasses
import hashlib
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from absl import flags

ROOT = Path(__file__).resolve().parents[3]
RATE = 16000


@dataclasses.dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: list[str]  # lines, without progress bars


@dataclasses.dataclass(frozen=True)
class Commands:
    """`ergl`, `run.py` and the programs of data_prep, by name, in a folder `here`."""

    here: Path
    _run: object

    def run(self, command: str, *arguments) -> Outcome:
        return self._run(command, [str(argument) for argument in arguments])

    def refuse(self, command: str, *arguments, words: list[str]) -> str:
        """The one line of the error, with exit status 2 and nothing changed on disk."""
        before = contents(self.here)
        outcome = self.run(command, *arguments)
        assert outcome.status == 2, outcome
        (line,) = outcome.err
        assert line.startswith("error: "), line
        for word in words:
            assert word in line, (word, line)
        assert "Traceback" not in outcome.out + line
        assert contents(self.here) == before
        return line


def contents(folder: Path) -> dict[str, str]:
    """Every path below a folder, with a hash of what files hold."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "directory"
        for path in folder.rglob("*")
    }


def lines_of(text: str) -> list[str]:
    """Lines of standard error that are no progress bar."""
    lines = [line.rpartition("\r")[2].strip() for line in text.splitlines()]
    return [line for line in lines if line and not re.search(r"\d+%\||\d+ ?\w*/s|\?\w*/s", line)]


@pytest.fixture
def commands(tmp_path, capfd, monkeypatch, load_script) -> Commands:
    def run(command: str, arguments: list[str]) -> Outcome:
        capfd.readouterr()
        try:
            status = _main(command, load_script)(arguments)
        except SystemExit as stop:  # absl's flags and argparse's --help end like this
            status = stop.code
        out, err = capfd.readouterr()
        return Outcome(status, out, lines_of(err))

    def _main(command, load_script):
        if command == "ergl":
            from ergl_jax.cli import main

            return main
        if command == "run.py":
            return _train
        return load_script(f"data_prep/{command}").main

    def _train(arguments):
        import run

        monkeypatch.chdir(ROOT)
        argv = ["run.py", *arguments]
        monkeypatch.setattr(sys, "argv", argv)  # config_flags looks there
        try:
            return run.main(run.parse_flags(argv))
        finally:
            sys.modules.pop("config_config", None)  # where the last config file's code stays
            for name in list(flags.FLAGS):  # overrides define flags as they are read
                if name.startswith("config."):
                    delattr(flags.FLAGS, name)
            flags.FLAGS.unparse_flags()

    folder = tmp_path / "here"
    folder.mkdir()
    return Commands(folder, run)


@pytest.fixture
def bundle(tiny, commands) -> Path:
    """A copy of a trained bundle in the folder, to spoil."""
    return shutil.copytree(tiny.workdir / "bundle", commands.here / "bundle")


@pytest.fixture
def clip(commands) -> Path:
    """A good recording of two seconds in the folder."""
    path = commands.here / "clip.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 2 * RATE), RATE)
    return path
