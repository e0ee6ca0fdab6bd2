"""The benchmark runner: JSON figures, bad flags, the printed page."""

import json
import re

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


@pytest.mark.slow
def test_tagging_equals_pytorch_with_torchlibrosa(tmp_path):
    pytest.importorskip("torchlibrosa")
    flags = ["--minutes", "1", "--width_divisor", "32", "--rounds", "1"]
    done = python("benchmarks/tagging.py", f"--root={tmp_path}", *flags)
    assert done.returncode == 0, done.stderr
    difference, span = map(
        float, re.findall(r"differ by (.*?) at most, and span (.*)", done.stdout)[0]
    )
    assert difference <= 1e-4 < 0.1 < span


MISTAKES = {
    "relations --at_once 0": "argument --at_once: '0' is not a whole number",
    "-m benchmarks --what=log_mel --rounds 0": "argument --rounds: '0' is not a whole number",
    "-m benchmarks --what=log_mel --workers 0": "argument --workers: '0' is not a whole number",
    "-m benchmarks --what=log_mel --front-ends mltf": "argument --front-ends: invalid choice",
    "-m benchmarks --what=nothing": "argument --what: invalid choice: 'nothing'",
    "-m benchmarks --json=a.json": "one of the arguments --what --render is required",
    "-m benchmarks --what=log_mel --json=/dev/null/a.json": "--json's directory /dev/null can't be",
    "edges --sizes 8": "argument --sizes: '' is not a whole number",
    "edges --max-gb=much": "argument --max-gb: invalid float value: 'much'",
    "growth --values 1,0": "argument --values: '0' is not a whole number",
    "scene_pairs none": "none",
    "explanations --part=sounds --workdir=none": "none",
    "esc10 --manifest=none.csv --seeds=x": "argument --seeds: invalid int value: 'x'",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_wrong_flags_end_in_one_line(command):
    name, *flags = command.split()
    done = python(*([name] if name == "-m" else [f"benchmarks/{name}.py"]), *flags)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {MISTAKES[command]}") or name in ("scene_pairs", "explanations")


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
