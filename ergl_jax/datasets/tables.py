"""CSV tables that users write."""

import csv
import dataclasses
import io
from collections.abc import Iterator, Sequence
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

    def problems() -> Iterator[str]:
        columns = ", ".join(header)
        for column in required:
            if column not in header:
                found = f"the columns are {columns}" if header else "the file is empty"
                yield f"{path}, line 1: no column {column!r}; {found}"
        for column in header:
            if header.count(column) > 1:
                yield f"{path}, line 1: the column {column!r} is there twice; remove one"
        if not lines:
            yield f"{path}: no rows below the header"
        for number, cells in lines:
            if len(cells) != len(header):
                fields = f"{len(cells)} fields where the header has {len(header)}"
                yield f"{path}, line {number}: {fields}: {columns}"
            for column in required:
                value = cells[header.index(column)]
                if not value or "\0" in value:
                    reason = "contains a zero byte" if value else "is empty"
                    yield f"{path}, line {number}: the field {column!r} {reason}"

    for problem in problems():
        raise InputError(problem)
    return [Row(f"{path}, line {n}", dict(zip(header, cells, strict=True))) for n, cells in lines]
