"""Progress of slow work: a bar in a terminal, plain lines in a log file."""

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

SECONDS = 30.0  # between two lines where standard error is no terminal
LINE = "{l_bar} {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"  # tqdm's own


def bar(items: Any = None, *, desc: str, **settings: Any) -> tqdm:
    """tqdm's bar with these settings; the same as lines where standard error is no terminal."""
    if not sys.stderr.isatty():
        settings |= {"file": _Lines(sys.stderr), "bar_format": LINE}
    return tqdm(items, desc=desc, **settings)


def say(line: str) -> None:
    """Prints a line on standard error, above the bar."""
    tqdm.write(line, file=sys.stderr)


class _Lines:
    """A file for tqdm: what it draws over and over becomes a line now and then, and at the end."""

    def __init__(self, file: TextIO):
        self._file, self._latest, self._next = file, "", time.monotonic() + SECONDS

    def write(self, text: str) -> None:
        self._latest = text.strip() or self._latest
        is_last = text == "\n"  # by tqdm.close
        if self._latest and (is_last or time.monotonic() >= self._next):
            self._file.write(f"{self._latest}\n")
            self._latest, self._next = "", time.monotonic() + SECONDS

    def flush(self) -> None:
        self._file.flush()
