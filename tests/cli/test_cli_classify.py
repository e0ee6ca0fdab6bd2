"""`ergl classify`: what it prints, and what becomes of recordings that it can't read."""

import csv
import io
import json
import shutil
import subprocess
import sys

import jax
import ml_collections
import numpy as np
import pytest
import soundfile

import ergl_jax
from ergl_jax import bundle as bundles
from ergl_jax import registry
from ergl_jax.audio import FRONT_ENDS
from ergl_jax.cli import main

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
    """Three recordings of different length in a folder, with a text among them."""
    folder = tmp_path / "clips"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, seconds in (("b.wav", 1), ("a.flac", 2), ("c.OGG", 5)):
        samples = rng.normal(0, 0.1, (seconds * 22050, 2))
        soundfile.write(folder / name, samples, 22050)
    (folder / "notes.txt").write_text("No recording.")
    return folder


def test_text_names_the_scene_the_events_and_the_windows(classify, clips, model):
    status, out, err = classify(clips / "c.OGG")
    assert (status, err) == (0, [])
    assert out == f"{model.classify(clips / 'c.OGG')}\n"
    lines, result = out.splitlines(), model.classify(clips / "c.OGG")
    assert lines[0] == f"{clips / 'c.OGG'}, 5.0 s"
    assert lines[1].split() == [f"{100 * result.probability:.1f}", "%", result.scene]
    assert lines[4].startswith(f"  events: {next(iter(result.events))} ")
    assert [line.split()[0] for line in lines[5:]] == ["0.0", "2.0", "3.0"]


def test_a_folder_is_the_audio_in_it_in_order(classify, clips, model):
    status, out, err = classify("--json", clips)
    assert (status, err) == (0, [])
    found = [json.loads(line) for line in out.splitlines()]
    paths = [clips / name for name in ("a.flac", "b.wav", "c.OGG")]
    assert [each["name"] for each in found] == list(map(str, paths))
    for each, path in zip(found, paths, strict=True):
        expected = model.classify(path)
        assert each["scene"] == expected.scene
        assert each["scenes"].keys() == expected.scenes.keys()
        assert list(each["events"].values()) == pytest.approx(
            list(expected.events.values()), abs=1e-6
        )
        assert len(each["timeline"]) == len(expected.timeline)
    assert [note.split(" are")[0] for note in found[1]["notes"]] == ["1 s"]


def test_csv_has_a_row_for_each_recording(classify, clips, model):
    status, out, _ = classify("--csv", clips / "a.flac", clips / "b.wav")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 0 and len(rows) == 2
    for row, name in zip(rows, ("a.flac", "b.wav"), strict=True):
        expected = model.classify(clips / name)
        assert (row["file"], row["scene"]) == (str(clips / name), expected.scene)
        assert float(row["seconds"]) == expected.stop
        assert float(row["probability"]) == pytest.approx(expected.probability, abs=1e-6)
        for kind, values in (("scene", expected.scenes), ("event", expected.events)):
            columns = {key: float(row[f"{kind}:{key}"]) for key in values}
            assert columns == pytest.approx(dict(values), abs=1e-6)
        assert len(row) == 4 + len(expected.scenes) + len(expected.events)


def test_patterns_are_expanded(classify, clips, monkeypatch):
    (clips / "deeper.wav").mkdir()
    soundfile.write(clips / "deeper.wav" / "d.wav", np.full(RATE, 0.1), RATE)

    def names(*patterns):
        status, out, err = classify("--json", *patterns)
        assert (status, err) == (0, [])
        return [json.loads(line)["name"].removeprefix(f"{clips}/") for line in out.splitlines()]

    assert names(clips / "*.flac", clips / "?.wav") == ["a.flac", "b.wav"]
    assert names(clips / "**" / "*.wav") == ["b.wav", "deeper.wav/d.wav"]
    (clips / ".hidden").mkdir()
    for name in (".hidden/a.wav", "._b.wav"):  # such as other systems leave behind
        (clips / name).write_bytes(b"no audio")
    (clips / "deeper.wav" / "again").symlink_to(clips)
    assert names(clips) == ["a.flac", "b.wav", "c.OGG", "deeper.wav/d.wav"]
    soundfile.write(clips / "[1].wav", np.full(RATE, 0.1), RATE)  # a file, not a pattern
    assert names(clips / "[1].wav") == ["[1].wav"]
    monkeypatch.setenv("HOME", str(clips))
    assert names("~/b.wav") == ["b.wav"]


def test_it_abstains_below_a_probability(classify, clips, model):
    probability = model.classify(clips / "a.flac").probability
    for below, abstains in ((probability - 1e-3, False), (probability + 1e-3, True), (1, True)):
        arguments = (f"--abstain-below={below}", clips / "a.flac")
        status, out, _ = classify(*arguments)
        assert status == 0 and ("  abstains: no scene is probable enough\n" in out) == abstains
        found = json.loads(classify("--json", *arguments)[1])
        assert (found["scene"] is None) == abstains
        assert found["probability"] == pytest.approx(probability, abs=1e-6)
        row = next(csv.DictReader(io.StringIO(classify("--csv", *arguments)[1])))
        assert (row["scene"] == "") == abstains


@pytest.mark.parametrize("value", ["-0.1", "1.5", "nan", "much", ""])
def test_what_is_no_probability_is_refused(classify, value):
    status, out, (line,) = classify(f"--abstain-below={value}", "a.wav")
    assert (status, out) == (2, "") and "--abstain-below" in line


def test_one_form_at_a_time(classify):
    status, out, (line,) = classify("--json", "--csv", "a.wav")
    assert (status, out) == (2, "") and "not allowed with" in line


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: None, "can't be opened: No such file"),
        (lambda path: path.touch(), "the file is empty (0 bytes)"),
        (lambda path: path.write_text("no audio " * 99), "can't be decoded as audio"),
        (
            lambda path: soundfile.write(path, np.full(RATE, np.nan), RATE, subtype="FLOAT"),
            "holds samples that are NaN or infinite",
        ),
        (lambda path: soundfile.write(path, np.zeros(0), RATE), "holds no samples"),
    ],
)
@pytest.mark.parametrize("form", ["--json", "--csv", None])
def test_a_bad_recording_is_a_line_and_the_others_go_on(classify, clips, spoil, reason, form):
    bad = clips.parent / "bad.wav"
    spoil(bad)
    form = [] if form is None else [form]
    status, out, err = classify(*form, clips / "a.flac", bad, clips / "b.wav")
    assert status == 2
    assert len(err) == 1 and err[0].startswith(f"error: {bad}: ") and reason in err[0]
    assert classify(*form, clips / "a.flac", clips / "b.wav") == (0, out, [])


def test_a_fifth_of_a_second_is_classified_and_noted(classify, tmp_path):
    soundfile.write(tmp_path / "short.wav", np.full(RATE // 5, 0.1), RATE)
    status, out, err = classify(tmp_path / "short.wav")
    assert (status, err) == (0, [])
    assert "note: 0.2 s are filled with silence to 2 s" in out


def test_a_folder_without_audio_is_a_line(classify, tmp_path):
    status, out, err = classify(tmp_path)
    assert (status, out) == (2, "")
    assert err == [
        f"error: {tmp_path} holds no audio file (.wav, .flac, .ogg, .mp3, .aif, .aiff, .opus)"
    ]


@pytest.fixture
def directory(tiny, tmp_path):
    """A copy of the bundle, to spoil."""
    return shutil.copytree(tiny.workdir / "bundle", tmp_path / "bundle")


def change(directory, **fields):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def make_pann(directory):
    """An untrained PANN's bundle, which has events alone."""
    config = json.loads((directory / "config.json").read_text())["model"] | {"name": "pann"}
    pann = registry.build(ml_collections.ConfigDict(config), num_scenes=0, num_events=3)
    shutil.rmtree(directory)
    bundles.Bundle(
        model=config,
        variables=pann.init(jax.random.key(0), np.zeros((1, 201, 64)), train=False),
        scenes=(),
        events=("Dog", "Rain", "Bird"),
        front_end=FRONT_ENDS["panns_16k"],
        clip_seconds=2.0,
        pad="zero",
        licence="CC0",
        dataset="none",
    ).save(directory)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: shutil.rmtree(path), "is not a bundle: it has no config.json"),
        (lambda path: (path / "model.safetensors").unlink(), "it has no model.safetensors"),
        (
            lambda path: (path / "model.safetensors").write_bytes(bytes(100)),
            "model.safetensors is damaged",
        ),
        (lambda path: (path / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda path: change(path, format=2), "format=2, and this version reads 1 alone: install"),
        (
            lambda path: change(path, temperature="warm"),
            "config.json: temperature='warm' is no finite number",
        ),
        (lambda path: change(path, temperature=0), "temperature=0 is not from 0.001"),
        (
            lambda path: change(path, clip_seconds=float("inf")),
            "clip_seconds=inf is no finite number",
        ),
        (lambda path: change(path, pad="wrap"), "pad='wrap' is neither"),
        (lambda path: change(path, scenes=[]), "scenes is empty, and only a PANN knows none"),
        (lambda path: change(path, scenes=[f"s{k % 9}" for k in range(10)]), "names 's0' twice"),
        (lambda path: change(path, events="Bird"), "events='Bird' is no list"),
        (lambda path: change(path, events=[1, 2, 3, 4]), "events is no list of names"),
        (lambda path: change(path, clip_seconds=1e9), "clip_seconds=1000000000.0 is not from"),
        (lambda path: (path / "config.json").write_text("[" * 100_000), "config.json is not JSON"),
        (make_pann, "the bundle names no scenes: it tags events (a PANN)"),
    ],
)
def test_a_bundle_that_is_none_is_a_line(classify, clips, directory, spoil, reason):
    spoil(directory)
    status, out, err = classify(clips, bundle=directory)
    assert (status, out) == (2, "")
    assert len(err) == 1 and err[0].startswith("error: ") and reason in err[0]


def test_it_runs_as_a_module(tiny, clips):
    bundle = str(tiny.workdir / "bundle")
    done = subprocess.run(
        [sys.executable, "-m", "ergl_jax", "classify", "--bundle", bundle, clips / "none.wav"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(f"error: {clips / 'none.wav'}: can't be opened")
    assert "Traceback" not in done.stderr


def test_nobody_reading_on_is_no_trace(tiny, clips):
    command = [sys.executable, "-m", "ergl_jax", "classify", str(clips), "--bundle"]
    pipe = subprocess.Popen(
        [*command, str(tiny.workdir / "bundle"), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    pipe.stdout.close()
    assert pipe.stderr.read() == "" and pipe.wait() == 1
    pipe.stderr.close()


def test_a_folder_without_audio_does_not_stop_the_others(classify, clips, tmp_path):
    (tmp_path / "empty").mkdir()
    status, out, err = classify(tmp_path / "empty", "", "x" * 5000, clips / "a.flac")
    assert status == 2 and "a.flac" in out
    assert [line.split(":")[0] for line in err] == ["error"] * 3
