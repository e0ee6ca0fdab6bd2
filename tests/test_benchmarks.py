"""The benchmark runner: JSON figures, bad flags, the printed page."""

import json

import jax
import pytest
from programs import ROOT, python


@pytest.mark.slow
def test_figures_are_written_as_printed(tmp_path):
    path = tmp_path / "figures.json"
    flags = ["--front-ends", "panns_16k", "--clips", "2", "--workers", "1", "--rounds", "1"]
    done = python("-m", "benchmarks", "--what=log_mel", f"--json={path}", *flags)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text(encoding="utf-8"))
    assert (found["benchmark"], found["flags"]) == ("log_mel", flags)
    assert found["versions"]["jax"] == jax.__version__
    (table,) = found["tables"]
    assert len(table["rows"]) == 5
    for row in table["rows"]:
        assert "| " + " | ".join(row) + " |" in done.stdout.splitlines()


@pytest.mark.slow
def test_a_row_of_growth_is_measured():
    flags = ["--values", "2", "--batch", "1", "--tokens", "3", "--rounds", "1"]
    done = python("benchmarks/growth.py", *flags)
    assert done.returncode == 0, done.stderr
    row = done.stdout.splitlines()[-1].split(" | ")
    assert row[:2] == ["| events", "2"] and row[2].endswith(" ms"), row


def test_wrong_flags_end_in_one_line():
    done = python("benchmarks/relations.py", "--at_once", "0")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: argument --at_once: '0' is not a whole number")


def test_all_results_are_printed():
    printed = python("-m", "benchmarks", "--render").stdout
    results = [
        json.loads(path.read_text()) for path in (ROOT / "benchmarks/results").glob("*.json")
    ]
    assert results
    for one in results:
        assert f"## {one['title']}\n" in printed
        for table in one["tables"]:
            for row in table["rows"]:
                assert "| " + " | ".join(map(str, row)) + " |\n" in printed
