"""`ergl classify`: its output, and what happens to recordings and bundles that it can't read."""

import argparse
import csv
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from made_recordings import encode
from rights import obeyed

import ergl_jax
from ergl_jax.cli import classify as command
from ergl_jax.cli import main
from ergl_jax.errors import warn
from ergl_jax.known import KEEP

RATE = 16000


@pytest.fixture(scope="module")
def model(tiny):
    return ergl_jax.load(tiny.workdir / "bundle")


@pytest.fixture
def classify(tiny, capsys):
    """Runs the command; returns its status, standard output and lines of standard error."""

    def classify(*arguments, bundle=tiny.workdir / "bundle"):
        status = main(["classify", "--bundle", str(bundle), *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out, err.splitlines()

    return classify


@pytest.fixture
def clips(tmp_path):
    """A folder with three recordings of different length and a text file."""
    folder = tmp_path / "clips"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, seconds in (("b.wav", 1), ("a.flac", 2), ("c.OGG", 5)):
        soundfile.write(folder / name, rng.normal(0, 0.1, (seconds * 22050, 2)), 22050)
    (folder / "notes.txt").write_text("No recording.")
    warn.cache_clear()
    return folder


def skipped(clips):
    """The warning of that text file."""
    return f"warning: {clips}: skipped 1 file that is not audio: .txt 1"


def test_the_command_keeps_as_many_recordings_as_python():
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert parser.parse_args(["clip.wav"]).keep == KEEP


def test_text_has_scene_events_windows_and_notes(classify, clips, model):
    status, out, err = classify("--keep=1", clips / "c.OGG", clips / "b.wav")
    result = model.classify(clips / "c.OGG")
    assert (status, err) == (0, [])
    lines = out.splitlines()
    assert lines[0] == f"{clips / 'c.OGG'}, 5.0 s"
    assert lines[1].split() == [f"{100 * result.probability:.1f}", "%", result.scene]
    assert lines[4].startswith(f"  events: {next(iter(result.events))} ")
    assert [line.split()[0] for line in lines[5:8]] == ["0.0", "2.0", "3.0"]
    assert lines[-2:] == [
        "  note: padded from 1 to 2 s with silence",
        model.bundle.about_probabilities,
    ]


def test_json_and_csv_of_a_folder_are_the_models_predictions(classify, clips, model):
    status, out, err = classify("--json", "--keep=1", clips)
    results = [json.loads(line) for line in out.splitlines()]
    rows = list(csv.DictReader(io.StringIO(classify("--csv", "--keep=1", clips)[1])))
    assert (status, err) == (0, [skipped(clips)])
    paths = [clips / name for name in ("a.flac", "b.wav", "c.OGG")]
    for result, row, path in zip(results, rows, paths, strict=True):
        expected = model.classify(path)
        assert result["file"] == row["file"] == str(path)
        assert "; ".join(result["notes"]) == row["notes"]
        assert result["calibration"] == model.bundle.calibration
        assert result["distance"] == pytest.approx(float(row["distance"]), abs=1e-6)
        assert result["scene"] == row["scene"] == expected.scene
        assert float(row["seconds"]) == expected.stop
        assert len(result["timeline"]) == len(expected.timeline)
        for kind, values in (("scene", expected.scenes), ("event", expected.events)):
            assert result[f"{kind}s"] == pytest.approx(dict(values), abs=1e-6)
            columns = {name: float(row[f"{kind}:{name}"]) for name in values}
            assert columns == pytest.approx(dict(values), abs=2e-6)
        assert row["error"] == "" and not result.get("error")


def test_folders_and_patterns_are_expanded(classify, clips, monkeypatch):
    (clips / "deeper.wav").mkdir()
    (clips / ".hidden").mkdir()
    for name in ("deeper.wav/d.wav", "[1].wav"):
        soundfile.write(clips / name, np.full(RATE, 0.1), RATE)
    for name in (".hidden/a.wav", "._b.wav"):  # as other systems leave behind
        (clips / name).write_bytes(b"no audio")
    monkeypatch.setenv("HOME", str(clips))
    for patterns, expected in (
        ([clips / "*.flac", clips / "?.wav"], ["a.flac", "b.wav"]),
        ([clips / "**" / "?.wav"], ["b.wav", "deeper.wav/d.wav"]),
        ([clips / "[1].wav"], ["[1].wav"]),  # a file, not a pattern
        (["~/b.wav"], ["b.wav"]),
        ([clips], ["[1].wav", "a.flac", "b.wav", "c.OGG", "deeper.wav/d.wav"]),
    ):
        if patterns == [clips]:  # links to folders aren't followed
            (clips / "deeper.wav" / "again").symlink_to(clips)
        status, out, err = classify("--json", *patterns)
        names = [json.loads(line)["file"] for line in out.splitlines()]
        assert (status, err) == (0, [skipped(clips)] * (patterns == [clips]))
        assert names == [f"{clips}/{name}" for name in expected]


def test_notes_and_the_chosen_channel_are_in_every_form(classify, tmp_path):
    samples = np.random.default_rng(0).normal(0, 0.1, 2 * RATE)
    soundfile.write(tmp_path / "inverted.wav", np.stack([samples, -samples], axis=1), RATE)
    soundfile.write(tmp_path / "one_sample.wav", samples[:1], RATE)
    soundfile.write(tmp_path / "slow.wav", samples[:50], 1)
    soundfile.write(tmp_path / "silent.wav", 0 * samples, RATE)
    wanted = {"inverted": "--channel", "one_sample": "padded", "silent": "silence", "slow": "1 Hz"}
    results = [json.loads(line) for line in classify("--json", tmp_path)[1].splitlines()]
    rows = list(csv.DictReader(io.StringIO(classify("--csv", tmp_path)[1])))
    text = classify(tmp_path)[1]
    for (name, note), result, row in zip(wanted.items(), results, rows, strict=True):
        assert name in result["file"] and note in " ".join(result["notes"])
        assert row["notes"] == "; ".join(result["notes"])
        assert all(f"  note: {each}\n" in text for each in result["notes"])
    (row,) = csv.DictReader(
        io.StringIO(classify("--csv", "--channel=right", tmp_path / "inverted.wav")[1])
    )
    assert row["notes"] == ""


def test_a_name_can_not_pass_for_a_result(classify, tmp_path):
    path = tmp_path / "a\n  99.0 %  home\x1b[8m.wav"
    soundfile.write(path, np.full(RATE, 0.1), RATE)
    status, out, err = classify("--keep=1", path)
    assert (status, err) == (0, [])
    assert out.splitlines()[0] == f"{tmp_path}/a\\n  99.0 %  home\\x1b[8m.wav, 1.0 s"
    assert json.loads(classify("--json", path)[1])["file"] == str(path)


def test_phone_recordings_in_folders_are_found(classify, tmp_path):
    samples = np.random.default_rng(0).normal(0, 0.1, 2 * 44100)
    for name in ("a.M4A", "b.3gp", "c.mp4"):
        encode(tmp_path / name, samples, 44100, "aac", container="mp4")
    soundfile.write(tmp_path / "d.caf", samples, 44100)
    soundfile.write(tmp_path / "e.w64", samples, 44100)
    status, out, err = classify("--json", tmp_path)
    names = [json.loads(line)["file"] for line in out.splitlines()]
    assert (status, err) == (0, []) and names == sorted(map(str, tmp_path.iterdir()))


def test_it_abstains_below_a_probability(classify, clips, model):
    probability = model.classify(clips / "a.flac").probability
    for below, abstains in ((probability - 1e-3, False), (probability + 1e-3, True)):
        arguments = (f"--abstain-below={below}", "--keep=1", clips / "a.flac")
        second = classify(*arguments)[1].splitlines()[1]
        assert (second == "  no answer: no scene reaches --abstain-below") == abstains
        found = json.loads(classify("--json", *arguments)[1])
        assert (found["scene"] is None) == abstains
        assert found["probability"] == pytest.approx(probability, abs=1e-6)
        (row,) = csv.DictReader(io.StringIO(classify("--csv", *arguments)[1]))
        assert (row["scene"] == "") == abstains


def test_it_abstains_from_unknown_sounds(classify, clips, model):
    """--keep=0 leaves none but what is nearer than all validation clips."""
    path = clips / "a.flac"
    assert model.classify(path).distance > model.bundle.known.limit(0)
    arguments = ("--keep=0", path)
    assert (
        classify(*arguments)[1]
        .splitlines()[1]
        .startswith("  None of the model's 10 classes: unlike the training clips (distance ")
    )
    found = json.loads(classify("--json", *arguments)[1])
    assert found["scene"] is None and not found["known"]
    assert found["max_distance"] == model.bundle.known.limit(0) < found["distance"]
    (row,) = csv.DictReader(io.StringIO(classify("--csv", *arguments)[1]))
    assert row["scene"] == "" and float(row["distance"]) > float(row["max_distance"])


@pytest.mark.parametrize("flag", ["--abstain-below=1.5", "--abstain-below=nan", "--csv"])
def test_wrong_flags_are_refused(classify, flag):
    status, out, (line,) = classify("--json", flag, "a.wav")
    assert (status, out) == (2, "") and flag.partition("=")[0] in line


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_unreadable_recordings_are_reported_and_skipped(classify, clips, tmp_path, form):
    (tmp_path / "none").mkdir()
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no audio " * 99)
    soundfile.write(tmp_path / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "no_samples.wav", np.zeros(0), RATE)
    reasons = {
        "none": "contains no audio file (.wav, .flac",
        "missing.wav": "can't be read: No such file",
        "empty.wav": "the file is empty (0 bytes)",
        "text.wav": "not decodable as audio",
        "nan.wav": "has samples that are NaN or infinite",
        "no_samples.wav": "has no samples",
    }
    bad = [tmp_path / name for name in reasons]
    status, out, err = classify(form, clips / "a.flac", *bad, "", "x" * 5000, clips / "b.wav")
    assert status == 2 and len(err) == len(bad) + 2
    for path, reason in zip(bad, reasons.values(), strict=True):
        (line,) = [line for line in err if str(path) in line]
        assert line.startswith("error: ") and reason in line
    lines = out.splitlines()
    rows = list(csv.DictReader(lines) if form == "--csv" else map(json.loads, lines))
    errors = {row["file"]: row["error"] for row in rows if row.get("error")}
    assert sorted(errors) == sorted([*map(str, bad), "", "x" * 5000])
    assert [f"error: {error}" for error in errors.values()] == err
    good = [row["file"] for row in rows if not row.get("error")]
    assert good == [str(clips / "a.flac"), str(clips / "b.wav")]


def test_a_denied_folder_is_reported(classify, clips, monkeypatch):
    scandir = os.scandir
    (clips / "closed").mkdir()

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may read all
    status, _, err = classify(clips)
    denied = f"error: {clips}/closed can't be read: Permission denied"
    assert status == 2 and err == [denied, skipped(clips)]


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_what_may_not_be_read_is_reported_and_the_rest_is_classified(classify, clips, form):
    shutil.copytree(clips, clips / "closed")
    (clips / "closed").chmod(0)
    shutil.copy(clips / "b.wav", clips / "secret.wav")
    (clips / "secret.wav").chmod(0)
    try:
        with obeyed():
            status, out, err = classify(form, clips)
    finally:
        (clips / "closed").chmod(0o700)
    denied = [
        f"error: {clips / name} can't be read: Permission denied"
        for name in ("closed", "secret.wav")
    ]
    assert status == 2 and err == [denied[0], skipped(clips), denied[1]]
    rest = classify(form, *(clips / name for name in ("a.flac", "b.wav", "c.OGG")))[1].splitlines()
    failed = [line for line in out.splitlines() if line not in rest]
    assert [line for line in out.splitlines() if line in rest] == rest
    for error, line in zip(denied, failed, strict=True):
        assert error.removeprefix("error: ") in line


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_are_not_utf_8_stay_distinct(classify, clips, monkeypatch, encoding):
    names = [b"a\xe8.wav", b"a\xe9.wav", "é.wav".encode(), "\u0416.wav".encode()]
    for name in names:
        shutil.copy(clips / "b.wav", os.fsencode(clips) + b"/" + name)
    for form in ("--csv", "--json"):
        output = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding))
        status, *_ = classify(form, *(os.fsdecode(os.fsencode(clips) + b"/" + x) for x in names))
        sys.stdout.flush()
        lines = output.getvalue().decode(encoding).splitlines()
        rows = map(json.loads, lines) if form == "--json" else csv.DictReader(lines)
        found = {row["file"] for row in rows}
        assert status == 0 and len(found) == len(names)
    monkeypatch.undo()


@pytest.mark.slow
def test_it_runs_as_a_module_until_its_output_is_closed(tiny, clips):
    command = [sys.executable, "-m", "ergl_jax", "classify", "--json", "--bundle"]
    command.append(str(tiny.workdir / "bundle"))
    done = subprocess.run([*command, clips / "none.wav"], capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: {clips / 'none.wav'} can't be read")
    assert json.loads(done.stdout)["file"] == str(clips / "none.wav")
    (clips / "notes.txt").unlink()  # which is warned of
    with subprocess.Popen(
        [*command, clips], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as pipe:
        pipe.stdout.close()
        assert pipe.stderr.read() == "" and pipe.wait() == 1
