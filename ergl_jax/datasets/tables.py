"""Tables that users write: CSV, in the forms that spreadsheets and corpora have it too."""

import codecs
import csv
import dataclasses
import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ergl_jax.errors import InputError, warn
from ergl_jax.files import read_bytes

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
SEP = re.compile(r'"?sep=([,;\t|])"?[,;\t|]*(\r\n|\r|\n)', re.IGNORECASE)  # Excel's first line


@dataclasses.dataclass(frozen=True)
class Row:
    where: str  # "<file>, line <n>", for error messages
    cells: dict[str, str]  # by column, in the table's order


def read_table(
    path: Path,
    required: Sequence[str],
    remedy: str = "",
    rename: Callable[[list[str]], list[str]] = list,
    *,
    note: bool = True,
) -> list[Row]:
    """A table's rows, at least one, without surrounding spaces and blank lines.

    Args:
      path: a text file whose first line names the columns. Fields are between commas, semicolons,
        tabs or vertical bars: those by which the first line has the required columns. UTF-8,
        UTF-16 or Windows-1252; how any but a CSV in UTF-8 is read is a line on standard error.
      required: columns that must exist and have a value in every row.
      remedy: what to do about a file that can't be read, or lacks a required column.
      rename: the columns that the header's names stand for.
      note: write that line.

    Raises:
      InputError: one line that names file, line and field.
    """
    text, encoding = _decode(read_bytes(path, remedy), path)
    sep = SEP.match(text)
    if sep:
        text = "\n" + text[sep.end() :]  # the line numbers stay

    def fit(delimiter: str) -> tuple[int, int]:
        found = _header(text, delimiter)
        return sum(column in rename(found) for column in required), max(1, len(found))

    delimiter = sep[1] if sep else max(DELIMITERS, key=fit)
    reader = _reader(text, delimiter)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV: {error}") from error
    (_, named), *lines = [line for line in lines if any(line[1])] or [(1, [])]
    header, columns = rename(named), ", ".join(named)
    for column in required:
        if column not in header:
            found = f"the columns are {columns}" if header else "the file is empty"
            reason = f"no column {column!r}; {found}{remedy and f'; {remedy}'}"
            raise InputError(f"{path}, line 1: {reason}")
    for column in filter(None, header):  # columns without a name are not used
        if header.count(column) > 1:
            raise InputError(f"{path}, line 1: the column {column!r} is there twice; remove one")
    if not lines:
        raise InputError(f"{path}: no rows below the header")
    used = max(i for i, column in enumerate(header, start=1) if column)
    rows = []
    for number, cells in lines:
        where = f"{path}, line {number}"
        if len(cells) < used or any(cells[len(header) :]):  # spreadsheets add empty ones at the end
            fields = f"{len(cells)} fields where the header has {len(header)}"
            quote = f"; quote fields with {DELIMITERS[delimiter]} in them" * (len(cells) > used)
            raise InputError(f"{where}: {fields}: {columns}{quote}")
        rows.append(Row(where, dict(zip(header[:used], cells, strict=False))))
        for column in required:
            value = rows[-1].cells[column]
            if not value or "\0" in value:
                reason = "contains a zero byte" if value else "is empty"
                raise InputError(f"{where}: the field {column!r} {reason}")
    how = [f"as {encoding}"] if encoding else []
    how += [f"with {DELIMITERS[delimiter]} between fields"] if delimiter != "," else []
    pairs = zip(named, header, strict=True)
    how += [f"with {old!r} as the column {new!r}" for old, new in pairs if old != new]
    if how and note:
        warn(f"{path} is read {', '.join(how)}")
    return rows


def nfc(name: str) -> str:
    """A name in the Unicode form (NFC) in which names are compared."""
    return unicodedata.normalize("NFC", name)


def _decode(content: bytes, path: Path) -> tuple[str, str]:
    """The text of a table, and its encoding, or "" for UTF-8; InputError for any other."""
    mark, zeros = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), b"\0" in content[:2]
    try:
        if mark:
            return content.decode("utf-16"), "UTF-16"
        if zeros:  # no mark, but a table begins with a letter or quote of ASCII
            return content.decode("utf-16-le" if content[0] else "utf-16-be"), "UTF-16"
        return content.decode("utf-8-sig"), ""
    except UnicodeDecodeError as error:
        text = "" if mark or zeros else content.decode("cp1252", errors="replace")
        others = [x for x in text if x > "\x7f"]
        # Text of another encoding has few letters of Western Europe, or many in a row.
        western = sum("À" <= x <= "ÿ" for x in others)
        if 2 * western <= len(others) or "\ufffd" in text or re.search("[À-ÿ]{3}", text):
            reason = "not UTF-8 text; save the table as CSV UTF-8, as spreadsheets call it"
            raise InputError(f"{path} can't be read: {reason}") from error
        (example,) = re.findall(r"\w*[À-ÿ]\w*", text)[:1]
        return text, f"Windows-1252 (such as {example!r})"


def _reader(text: str, delimiter: str):
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)


def _header(text: str, delimiter: str) -> list[str]:
    """The cells of the first line that is not blank; none if it is not CSV by this delimiter."""
    lines: Iterator[list[str]] = ([x.strip() for x in row] for row in _reader(text, delimiter))
    try:
        return next(filter(any, lines), [])
    except csv.Error:
        return []


def write_table(path: Path, columns: Iterable[str], rows: Iterable[Iterable]) -> None:
    """Writes a table that `read_table` reads; InputError for a name that is not UTF-8."""
    rows = list(rows)
    for cell in (cell for row in rows for cell in row if isinstance(cell, str)):
        if not cell.isascii() and re.search("[\ud800-\udfff]", cell):
            raise InputError(f"{cell!r}: a name that is not UTF-8: rename it")
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
