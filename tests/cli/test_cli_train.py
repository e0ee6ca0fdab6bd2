"""`ergl train`, `ergl evaluate` and `ergl compare`, from recordings to compared runs."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
import soundfile

import ergl_jax
from ergl_jax.cli import main
from ergl_jax.datasets import labelled
from ergl_jax.datasets.manifest import read_rows
from ergl_jax.errors import warn
from ergl_jax.recipes import own_recordings as own
from ergl_jax.training import workdirs

RATE = 16000
SMALL = ("train.epochs=2", "model.encoder.architecture=cnn6", "model.encoder.width_divisor=32")
SMALL += ("model.channels=4", "train.batch_size=4", "data.clip_seconds=1.0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten recordings each of noise and of a tone."""
    folder = tmp_path_factory.mktemp("own") / "clips"
    rng = np.random.default_rng(0)
    t = np.arange(RATE) / RATE
    for i in range(10):
        sounds = {"rain": rng.normal(0, 0.1, RATE), "bell": np.sin(880 * (1 + i / 9) * t)}
        for name, samples in sounds.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / name / f"{i}.wav", samples, RATE)
    return folder


def train(folder, out, *settings):
    flags = [flag for setting in SMALL + settings for flag in ("--set", setting)]
    return main(["train", str(folder), "--out", str(out), *flags])


@pytest.fixture(scope="module")
def runs(folder):
    """Work directories of two runs of different seeds."""
    runs = [folder.parent / "a", folder.parent / "b"]
    assert [train(folder, run, f"seed={seed}") for seed, run in enumerate(runs)] == [0, 0]
    return runs


def test_a_run_of_a_folder(folder, runs, capsys):
    bundle = ergl_jax.load(runs[0]).bundle  # a work directory will do
    assert bundle.scenes == bundle.events == ("bell", "rain")
    assert main(["classify", str(folder / "rain"), "--bundle", str(runs[0]), "--csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 11
    weights = (runs[0] / "bundle" / "model.safetensors").read_bytes()
    assert train(folder, runs[0], "seed=0") == 0  # finished: tests it again
    out = capsys.readouterr().out
    assert "run.py" in out and f"ergl classify NEW.wav --bundle {runs[0]}" in out
    assert (runs[0] / "bundle" / "model.safetensors").read_bytes() == weights


def test_a_test_clip_that_is_a_copy_of_a_training_clip_is_warned_of(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "clips" / "train")
    copy = tmp_path / "clips" / "test" / "bell" / "new name.wav"
    copy.parent.mkdir(parents=True)
    shutil.copy(folder / "bell" / "3.wav", copy)
    assert train(tmp_path / "clips", tmp_path / "run", "train.unknown=1") == 2
    errors = capsys.readouterr().err
    assert f"1 validation or test clips are copies of training clips, such as {copy} of" in errors


def test_a_run_that_is_trained_already_is_refused(folder, tmp_path, capsys):
    out = tmp_path / "run"
    with workdirs.held(out):  # by this process
        assert train(folder, out) == 2
        assert f"{out} is in use by process {os.getpid()} on " in capsys.readouterr().err
    assert not out.exists()


def test_what_can_be_wrong_is_reported_before_features_are_made(folder, tmp_path, capsys):
    for settings, message in (
        (["data.num_events=3"], "data.num_events=3"),
        (["train.batch_size=64"], "train.batch_size"),
        (["data.manifest=other.csv"], "--set data.manifest: give the recordings as FOLDER"),
        (["train.epohcs=3"], 'train.epohcs is an unknown field; did you mean "train.epochs"?'),
        (["data.validation_fraction=0.4"], "--set data.validation_fraction: add a column split"),
        (["train.epochs.a.b=3"], "train.epochs.a.b is an unknown field"),
        (['data.test_folds=["1"]'], "--set data.test_folds: add a column split to the CSV"),
        (["data.events_file=a.npz"], "--set data.events_file: rename the file to my.events.npz"),
        (["model.name=ergl_dynamic"], "--config=configs/ergl_dynamic.py:folder"),
        (["train.loss=frames"], "train.loss='frames' is not a loss of model.name='ergl'"),
    ):
        assert train(folder, tmp_path / "run", *settings) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run" / "features").exists()


def test_a_recording_added_since_is_refused_as_such(folder, tmp_path, capsys):
    """Even where the number of clips decides a setting."""
    few, out = tmp_path / "few", tmp_path / "run"
    for name in ("rain", "bell"):
        shutil.copytree(folder / name, few / name)
    corpus, _ = own.with_events(own.split(labelled.read_folder(few))[0])
    manifest = own.manifest_path(corpus, out)
    config = own.preset(corpus, np.ones(3), out, num_events=2, fields={"train.batch_size": 3})
    (out / "checkpoints").mkdir(parents=True)
    own.write_manifest(corpus, manifest)
    workdirs.write_json(out / "config.json", config.to_dict())
    assert main(["train", str(few), "--out", str(out)]) == 2
    assert "train.batch_size was 3" in capsys.readouterr().err
    shutil.copy(few / "rain" / "0.wav", few / "rain" / "10.wav")
    assert main(["train", str(few), "--out", str(out)]) == 2
    assert f", or their events, have changed since {manifest} was" in capsys.readouterr().err


def test_scores_on_other_recordings(folder, runs, tmp_path, capsys):
    listed = tmp_path / "other.csv"
    rows = [(folder / name / f"{i}.wav", name) for name in ("rain", "bell") for i in range(3)]
    rows.append((tmp_path / "missing.wav", "rain"))
    listed.write_text("file,scene\n" + "".join(f"{path},{name}\n" for path, name in rows))
    out = tmp_path / "scores"
    warn.cache_clear()
    status = main(["evaluate", str(runs[0]), "--manifest", str(listed), "--out", str(out)])
    err = capsys.readouterr().err
    assert status == 2 and "missing.wav" in err
    listed_rows = [row.cells for row in read_rows(runs[0] / "clips.csv")]
    trained = {row["file"] for row in listed_rows if row["split"] == "train"}
    count = sum(str(path) in trained for path, _ in rows)
    assert count and f"{count} of 7 recordings are in the training split of {runs[0]}: " in err
    scores = json.loads((out / "results.json").read_text())
    assert (scores["recordings"], scores["failures"]) == (6, 1)
    model = ergl_jax.load(runs[0])
    found = model.classify([str(path) for path, _ in rows[:-1]])
    right = [result.scene == name for result, (_, name) in zip(found, rows, strict=False)]
    assert scores["accuracy"] == np.mean(right)
    assert "abstained" not in scores  # four validation clips are too few
    losses = [-np.log(result.scenes[name]) for result, (_, name) in zip(found, rows, strict=False)]
    assert scores["scene_loss"] == pytest.approx(np.mean(losses))
    with open(out / "predictions.csv", newline="") as file:
        predicted = list(csv.DictReader(file))
    assert [row["predicted"] for row in predicted] == [result.scene for result in found]
    assert float(predicted[0]["rain"]) == pytest.approx(found[0].scenes["rain"], abs=1e-6)


def test_the_test_split_scores_as_training_said(runs, capsys):
    out = runs[0] / "again"
    listed = runs[0] / "clips.csv"
    assert main(["evaluate", str(runs[0]), "--manifest", str(listed), "--out", str(out)]) == 0
    mine, theirs = (json.loads((x / "results.json").read_text()) for x in (out, runs[0]))
    for name in ("accuracy", "class_mean_accuracy"):
        assert mine[name] == theirs["test"][name]
    name = "expected_calibration_error"
    assert mine[name] == pytest.approx(theirs["test"][name], abs=1e-4)


def test_clips_of_training_may_be_unknown(folder, runs, tmp_path, capsys):
    copy = shutil.copytree(runs[0] / "bundle", tmp_path / "copy")
    listed = tmp_path / "other.csv"
    listed.write_text(f"file,scene\n{folder / 'rain' / '0.wav'},rain\n")
    for bundle, said in ((runs[0], False), (copy, True)):
        assert main(["evaluate", str(bundle), "--manifest", str(listed)]) == 0
        err = capsys.readouterr().err
        assert (f"note: the training recordings of {bundle} are unknown" in err) == said
    assert main(["evaluate", str(copy), str(folder), "--split=validation"]) == 2
    assert "no validation clip: choose --split=train or all" in capsys.readouterr().err


def test_scores_of_classes_that_the_bundle_lacks(folder, runs, tmp_path, capsys):
    listed = tmp_path / "other.csv"
    listed.write_text(f"file,scene\n{folder / 'rain' / '0.wav'},wind\n")
    assert main(["evaluate", str(runs[0]), "--manifest", str(listed)]) == 2
    assert "no scene 'wind'" in capsys.readouterr().err


def test_runs_are_compared(runs, tmp_path, capsys):
    out = tmp_path / "compared"
    assert main(["compare", *map(str, runs), "--out", str(out)]) == 0
    assert "seed: 0 | 1" in capsys.readouterr().out
    found = json.loads((out / "comparison.json").read_text())
    for run, entry in zip(runs, found["runs"], strict=True):
        results = json.loads((run / "results.json").read_text())
        assert entry["class_mean_accuracy"] == pytest.approx(results["test"]["class_mean_accuracy"])
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert main(["compare", str(runs[0]), str(tmp_path)]) == 2
    assert "finished run" in capsys.readouterr().err
