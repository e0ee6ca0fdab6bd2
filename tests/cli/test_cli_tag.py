"""`ergl tag`: text, JSON, CSV, label files and pictures."""

import csv
import io
import json

import numpy as np
import pytest
import soundfile

import ergl_jax
from ergl_jax.cli import main

RATE = 16000


@pytest.fixture(scope="module")
def model(tiny):
    return ergl_jax.load(tiny.workdir / "bundle")


@pytest.fixture
def tag(tiny, capsys):
    """Runs the command; returns its status, lines of standard output and of standard error."""

    def tag(*arguments):
        bundle = tiny.workdir / "bundle"
        status = main(["tag", "--bundle", str(bundle), *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out.splitlines(), err.splitlines()

    return tag


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    (folder / "deeper").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, seconds in (("a.wav", 1), ("b.wav", 5), ("deeper/a.wav", 2)):
        soundfile.write(folder / name, rng.normal(0, 0.1, seconds * RATE), RATE)
    return folder


def test_text_has_mean_maximum_and_windows(tag, clips, model):
    status, lines, err = tag("--top=2", clips / "b.wav", clips / "a.wav")
    assert (status, err) == (0, [])
    tags = model.tag(clips / "b.wav")
    assert lines[0] == f"{clips}/b.wav, 5.0 s, 3 windows: mean and maximum of each event"
    for line, (event, p) in zip(lines[1:3], tags.events.items(), strict=False):
        assert line.split() == [f"{p:.4f}", f"{tags.maxima[event]:.4f}", event]
    assert [line.split()[:4] for line in lines[3:6]] == [
        ["0.0", "to", "2.0", "s"],
        ["2.0", "to", "4.0", "s"],
        ["3.0", "to", "5.0", "s"],
    ]
    assert lines[6] == f"{clips}/a.wav, 1.0 s"
    event, p = next(iter(model.tag(clips / "a.wav").events.items()))
    assert lines[7].split() == [f"{p:.4f}", event]
    assert lines[9] == "  note: padded from 1 to 2 s with silence"


@pytest.mark.parametrize("top", [None, 1, 3])
def test_json_and_csv_of_a_folder_are_the_models_tags(tag, clips, model, top):
    flags = [f"--top={top}"] if top else []
    status, lines, err = tag("--json", *flags, clips)
    assert (status, err) == (0, [])
    rows = list(csv.DictReader(io.StringIO("\n".join(tag("--csv", *flags, clips)[1]))))
    paths = [str(clips / name) for name in ("a.wav", "b.wav", "deeper/a.wav")]
    for line, row, path in zip(lines, rows, paths, strict=True):
        tags, found = model.tag(path), json.loads(line)
        assert found["file"] == row["file"] == path and row["error"] == ""
        assert float(row["seconds"]) == tags.stop
        assert row["notes"] == "; ".join(tags.notes)
        for field, prefix in (("events", "event"), ("maxima", "max")):
            expected = dict(list(getattr(tags, field).items())[:top])
            assert found[field] == pytest.approx(expected, abs=1e-6)
            cells = {event: row[f"{prefix}:{event}"] for event in model.events}
            cells = {event: float(x) for event, x in cells.items() if x}
            assert cells == pytest.approx(expected, abs=2e-6)


def test_label_files_and_pictures_mirror_the_folders(tag, clips, model, tmp_path):
    out = tmp_path / "out"
    status, lines, err = tag(clips, f"--timeline={out}", "--threshold=0.3")
    assert (status, err) == (0, [])
    step = model.tag(clips / "a.wav").activity.step
    assert lines[-1] == f"onsets and offsets, in steps of {step:g} s, and pictures: {out}"
    names = ["a.wav", "b.wav", "deeper/a.wav"]
    files = sorted(str(x.relative_to(out)) for x in out.rglob("*") if x.is_file())
    assert files == sorted(f"{name}.{kind}" for name in names for kind in ("png", "txt"))
    for name in names:
        labels = (out / f"{name}.txt").read_text(encoding="utf-8")
        assert labels == model.tag(clips / name).activity.labels(0.3)
    assert (out / "b.wav.txt").read_text(encoding="utf-8")


def test_two_recordings_of_one_name_are_not_mixed_up(tag, clips, model, tmp_path):
    out = tmp_path / "out"
    status, lines, (line,) = tag(
        "--json", clips / "a.wav", clips / "deeper/a.wav", f"--timeline={out}", "--threshold=0"
    )
    assert status == 2 and line.startswith(f"error: {clips}/deeper/a.wav: {out}/a.wav.txt is of")
    first, second = map(json.loads, lines)
    assert "error" not in first and second["file"] == f"{clips}/deeper/a.wav" and second["error"]
    labels = (out / "a.wav.txt").read_text(encoding="utf-8")
    assert labels == model.tag(clips / "a.wav").activity.labels(0.0)


@pytest.mark.parametrize("form", ["--json", "--csv", ""])
def test_unreadable_recordings_are_reported_and_skipped(tag, clips, form):
    (clips / "b.wav").write_text("no audio " * 99)
    status, lines, err = tag(*filter(None, [form]), clips, clips / "none.wav")
    assert status == 2 and len(err) == 2
    assert f"{clips}/b.wav" in err[0] and f"{clips}/none.wav can't be read" in err[1]
    text = "\n".join(lines)
    assert all(f"{clips}/{name}" in text for name in ("a.wav", "deeper/a.wav"))
    assert (f"{clips}/none.wav" in text) == bool(form)


MISTAKES = {
    "--top=0": "argument --top: '0' is not a whole number",
    "--threshold=2": "argument --threshold: 2 is not from 0 to 1",
    "--threshold=0.2": "--threshold needs --timeline DIR",
    "--timeline=/dev/null/a": "--timeline /dev/null/a can't be made",
}


@pytest.mark.parametrize("flag", MISTAKES)
def test_wrong_flags_end_in_one_line(tag, clips, flag):
    status, lines, (line,) = tag(flag, clips)
    assert (status, lines) == (2, []) and line.startswith(f"error: {MISTAKES[flag]}")
