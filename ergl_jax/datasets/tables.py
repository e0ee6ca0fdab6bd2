"""CSV tables that users write."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from ergl_jax.errors import InputError
from ergl_jax.files import read_text


@dataclasses.dataclass(frozen=True)
class Row:
    where: str  # "<file>, line <n>", for error messages
    cells: dict[str, str]  # by column, in the table's order


def read_table(path: Path, required: Sequence[str], remedy: str = "") -> list[Row]:
    """A table's rows, at least one, without surrounding spaces and blank lines.

    Args:
      path: a CSV file in UTF-8 whose first line names the columns.
      required: columns that must exist and have a value in every row.
      remedy: what to do about a file that can't be read.

    Raises:
      InputError: one line that names file, line and field.
    """
    reader = csv.reader(io.StringIO(read_text(path, remedy), newline=""), strict=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV: {error}") from error
    (_, header), *lines = [line for line in lines if any(line[1])] or [(1, [])]
    columns = ", ".join(header)
    for column in required:
        if column not in header:
            found = f"the columns are {columns}" if header else "the file is empty"
            raise InputError(f"{path}, line 1: no column {column!r}; {found}")
    for column in header:
        if header.count(column) > 1:
            raise InputError(f"{path}, line 1: the column {column!r} is there twice; remove one")
    if not lines:
        raise InputError(f"{path}: no rows below the header")
    rows = []
    for number, cells in lines:
        where = f"{path}, line {number}"
        if len(cells) != len(header):
            fields = f"{len(cells)} fields where the header has {len(header)}"
            raise InputError(f"{where}: {fields}: {columns}")
        rows.append(Row(where, dict(zip(header, cells, strict=True))))
        for column in required:
            value = rows[-1].cells[column]
            if not value or "\0" in value:
                reason = "contains a zero byte" if value else "is empty"
                raise InputError(f"{where}: the field {column!r} {reason}")
    return rows


def write_table(path: Path, columns: Iterable[str], rows: Iterable[Iterable]) -> None:
    """Writes a table that `read_table` reads."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
