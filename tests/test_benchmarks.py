"""Figures of a benchmark as JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax

ROOT = Path(__file__).resolve().parents[1]


def run(*flags):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *flags],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_figures_are_written_as_printed(tmp_path):
    path = tmp_path / "figures.json"
    flags = ["--front-ends", "panns_16k", "--clips", "2", "--workers", "1", "--rounds", "1"]
    done = run("--what=log_mel", f"--json={path}", *flags)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text(encoding="utf-8"))
    assert (found["benchmark"], found["flags"]) == ("log_mel", flags)
    assert found["versions"]["jax"] == jax.__version__
    assert found["machine"]["cores"] == len(os.sched_getaffinity(0))
    (table,) = found["tables"]
    assert len(table["rows"]) == 5
    for row in table["rows"]:
        assert "| " + " | ".join(row) + " |" in done.stdout.splitlines()


def test_a_row_of_growth_is_measured(tmp_path):
    path = tmp_path / "figures.json"
    flags = ["--values", "2", "--batch", "1", "--tokens", "3", "--rounds", "1"]
    done = run("--what=growth", f"--json={path}", *flags)
    assert done.returncode == 0, done.stderr
    ((row,),) = (table["rows"] for table in json.loads(path.read_text("utf-8"))["tables"])
    assert row[:2] == ["events", 2] and row[2].endswith(" ms"), row


def test_every_name_is_a_benchmark():
    done = run("--what=none")
    assert done.returncode == 2
    names = done.stderr.split("choose from ")[1].replace("'", "").strip().rstrip(")").split(", ")
    assert len(names) == 11
    for name in names:
        source = (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
        assert "harness.table(" in source  # what the figures are taken from


def test_all_results_are_printed():
    printed = run("--render").stdout
    kept = [json.loads(path.read_text()) for path in (ROOT / "benchmarks/results").glob("*.json")]
    assert kept
    for one in kept:
        assert f"## {one['title']}\n" in printed
        for table in one["tables"]:
            for row in table["rows"]:
                assert "| " + " | ".join(map(str, row)) + " |\n" in printed
