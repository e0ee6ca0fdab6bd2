"""Tables as spreadsheets and corpora save them: all are read as the plain CSV is."""

import pytest

from ergl_jax.datasets.tables import read_table
from ergl_jax.errors import InputError

PLAIN = "file,scene,note\nMünchen/ä.wav,Straße,a\nb.wav,bus,\n"


@pytest.fixture
def read(tmp_path, capfd):
    """Reads bytes as a table; returns the cells of its rows, and standard error."""

    def read(content):
        (tmp_path / "my.csv").write_bytes(content)
        rows = read_table(tmp_path / "my.csv", ("file", "scene"), "see the manual")
        return [row.cells for row in rows], capfd.readouterr().err

    return read


def by(delimiter, text=PLAIN):
    return text.replace(",", delimiter)


FORMS = {
    "Excel, semicolons": (by(";"), "utf-8-sig", ["with semicolons between fields"]),
    "Excel, sep=": ("sep=;\r\n" + by(";"), "utf-8", ["semicolons"]),
    "quoted sep= and empty columns": ('"sep=;";;\n' + by(";"), "utf-8", ["semicolons"]),
    "sep= of a tab": ("sep=\t\n" + by("\t"), "utf-8", ["tabs"]),
    "Excel, Unicode text": (by("\t"), "utf-16", ["as UTF-16", "tabs"]),
    "UTF-16 without a mark": (PLAIN, "utf-16-le", ["as UTF-16"]),
    "UTF-16 of the other order": (PLAIN, "utf-16-be", ["as UTF-16"]),
    "Excel, cp1252": (by(";"), "cp1252", ["as Windows-1252 (such as 'München')", "semicolons"]),
    "bars": (by("|"), "utf-8", ["vertical bars"]),
    "carriage returns": (PLAIN.replace("\n", "\r"), "utf-8", []),
    "empty columns": (PLAIN.replace("\n", ",,\n"), "utf-8", []),
    "empty columns in some rows": (PLAIN.replace("bus,\n", "bus,,,,\n"), "utf-8", []),
    "a line of separators": (by(";") + ";;\n", "utf-8", ["semicolons"]),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_has_the_plain_ones_rows(read, name):
    text, encoding, words = FORMS[name]
    rows, error = read(text.encode(encoding))
    assert (rows, "") == read(PLAIN.encode())
    assert len(error.splitlines()) == bool(words)
    for word in ("my.csv is read", *words) if words else ():
        assert word in error


def test_commas_stay_in_fields_of_other_tables_and_others_in_those_of_csv(read):
    rows, _ = read(by(";").replace("bus", "bus, red").encode())
    assert rows[1]["scene"] == "bus, red"
    rows, error = read(PLAIN.replace("note", "a;b;c;d;e").replace("bus", "bus;red").encode())
    assert rows[1]["scene"] == "bus;red" and not error


def test_the_number_of_a_line_counts_sep(read):
    with pytest.raises(InputError, match="my.csv, line 4: the field 'scene' is empty"):
        read(("sep=;\n" + by(";").replace("bus", "")).encode())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (by(";").replace("scene", "szene").encode(), "columns are file, szene, note; see the man"),
        (
            PLAIN.replace("bus,", "bus,,,x").encode(),
            "line 3: 5 fields where the header has 3.*; quote fields with commas",
        ),
        (PLAIN.replace("bus,", "bus").encode(), "line 3: 2 fields where the header has 3"),
        (PLAIN.encode("mac-roman"), "not UTF-8 text; save the table as CSV UTF-8"),
        (
            PLAIN.replace("Straße", "улица").replace("ü", "").encode("cp1251", "replace"),
            "not UTF-8",
        ),
        (PLAIN.replace("Straße", "地铁站").replace("ü", "").encode("gbk", "replace"), "not UTF-8"),
        (PLAIN.replace("Straße", "電車").encode("shift-jis", "replace"), "not UTF-8"),
        (PLAIN.replace("Straße", "지하철").encode("euc-kr", "replace"), "not UTF-8"),
        (b"PK\x03\x04\x14\x00\x06\x00\x08\x00!\x00A7\x82\xcfn\x01\x81\x8d\x90\x9d", "not UTF-8"),
    ],
)
def test_what_is_not_clear_is_refused_with_a_remedy(read, content, message):
    with pytest.raises(InputError, match=message):
        read(content)
