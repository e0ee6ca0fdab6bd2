"""Notes on recordings, as `audio.stream_audio` gives them: the first are printed, all kept."""

import csv
from collections.abc import Iterable
from pathlib import Path

from ergl_jax import progress
from ergl_jax.datasets.tables import write_table

MAX_PRINTED = 5


class Notes:
    """Notes on the recordings of a corpus.

    Attributes:
      rows: each recording's name and a note.
    """

    def __init__(self):
        self.rows: list[tuple[str, str]] = []

    def add(self, name: str, notes: Iterable[str]) -> None:
        """Keeps the notes on a recording, and prints those that are among the first."""
        for note in notes:
            self.rows.append((name, note))
            if len(self.rows) <= MAX_PRINTED:
                progress.say(f"note: {name}: {note}")

    def write(self, path: Path) -> None:
        """Writes all to a CSV file and prints where, or deletes the file if there are none."""
        if not self.rows:
            path.unlink(missing_ok=True)
            return
        write_table(path, ("name", "note"), self.rows)
        progress.say(f"{len(self.rows)} notes on recordings: {path}")


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """The rows of a CSV file with two columns, without its header; none if there is no file."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [(name, text) for name, text in csv.reader(file)][1:]
