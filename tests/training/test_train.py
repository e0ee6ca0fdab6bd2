"""Runs from their configuration to their bundle."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile

from ergl_jax import bundle as bundles
from ergl_jax.datasets import builder, sources, synthetic
from ergl_jax.errors import InputError
from ergl_jax.inference.embedding import output_and_features
from ergl_jax.known import KEEP
from ergl_jax.training import device_data, evaluate, metrics, train
from ergl_jax.training.train import _Run

ROOT = Path(__file__).resolve().parents[2]


def lines(workdir):
    """metrics.jsonl without what a clock decides."""
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert all(line.pop("clips_per_second") > 0 for line in found)
    return found


def weights(workdir):
    return (workdir / "bundle" / "model.safetensors").read_bytes()


def read(path):
    return json.loads(path.read_text())


def test_a_run_writes_its_files(tiny):
    expected = "bundle checkpoints config.json confusion.csv confusion.png metrics.jsonl "
    expected += "predictions.csv results.json tensorboard"
    assert sorted(path.name for path in tiny.workdir.iterdir()) == expected.split()
    assert read(tiny.workdir / "config.json") == json.loads(json.dumps(tiny.config().to_dict()))
    results = read(tiny.workdir / "results.json")
    assert results == tiny.results
    assert results["clips"] == {"train": 30, "validation": 10, "test": 10}
    assert results["devices"] == [device.device_kind for device in jax.devices()]
    assert set(results["versions"]) > {"ergl_jax", "python", "jax", "flax", "optax", "orbax"}
    leaves = jax.tree.leaves(bundles.load(tiny.workdir / "bundle").variables["params"])
    assert results["parameters"] == sum(x.size for x in leaves)
    assert results["training_seconds"] > 0


def test_a_run_writes_a_line_per_epoch_and_learns(tiny):
    parts = ["loss", "scene_loss", "event_loss", "accuracy", "gradient_norm"]
    validation = ["class_mean_accuracy", "accuracy", "scene_loss"]
    validation += ["event_mse", "event_mae", "event_map"]
    found = lines(tiny.workdir)
    assert [line.pop("epoch") for line in found] == [1, 2]
    for line in found:
        assert set(line) == {*parts, *(f"validation_{name}" for name in validation)}
        assert line["loss"] == pytest.approx(line["scene_loss"] + line["event_loss"])
    # Halved by the weights of the events: BatchNorm's statistics alone reach 0.8.
    first, second = (line["validation_event_mse"] for line in found)
    assert second < 0.65 * first


def test_the_best_epoch_on_validation_is_tested(tiny):
    scores = [line["validation_class_mean_accuracy"] for line in lines(tiny.workdir)]
    last_best = len(scores) - int(np.argmax(scores[::-1]))
    assert tiny.results["epoch"] == last_best
    assert tiny.results["validation_class_mean_accuracy"] == max(scores)


def test_the_bundle_has_what_inference_needs(tiny):
    bundle = bundles.load(tiny.workdir / "bundle")
    dataset = builder.load(next(tiny.data_dir.glob("*/*/*")))
    assert bundle.scenes == synthetic.SCENES and bundle.front_end == dataset.front_end
    assert (bundle.clip_seconds, bundle.pad, bundle.dataset) == (2.0, "zero", "synthetic")
    assert bundle.licence == synthetic.LICENCE
    totals = dataset.split("train").arrays()["events"].sum(axis=0)
    ranked = sorted(zip(-totals, dataset.events, strict=True))
    assert bundle.events == tuple(name for _, name in ranked[:4])


def test_the_temperature_is_fitted_on_validation(tiny):
    bundle = bundles.load(tiny.workdir / "bundle")
    assert bundle.temperature == tiny.results["temperature"] != 1
    clips = builder.load(next(tiny.data_dir.glob("*/*/*"))).split("validation").arrays()
    apply = jax.jit(partial(bundle.build().apply, train=False))
    logits = np.asarray(apply(bundle.variables, clips["log_mel"]).scene_logits)
    expected = metrics.fit_temperature(logits, clips["scene"])
    assert bundle.temperature == pytest.approx(expected, rel=1e-3)
    errors = metrics.calibration_errors(logits, clips["scene"], bundle.temperature)
    assert tiny.results["validation_calibration"] == pytest.approx(errors, abs=1e-4)
    assert bundle.calibration == tiny.results["calibration"] == f"{len(logits)} validation clips"


def test_the_limit_of_the_distance_keeps_validation_clips(tiny):
    bundle = bundles.load(tiny.workdir / "bundle")
    clips = builder.load(next(tiny.data_dir.glob("*/*/*"))).split("validation").arrays()
    apply = jax.jit(partial(output_and_features, bundle.build()))
    _, features = apply(bundle.variables, clips["log_mel"])
    distances = bundle.known.distance(np.asarray(features))
    np.testing.assert_allclose(np.sort(distances), bundle.known.distances, rtol=1e-3)
    kept = distances <= 1.001 * tiny.results["max_distance"]
    assert kept.mean() >= min(KEEP, 1 - 1 / len(kept))


def test_evaluation_and_a_second_start_give_the_same(tiny, tmp_path):
    shutil.copytree(tiny.workdir, tmp_path / "run")
    assert evaluate.evaluate_bundle(tmp_path / "run", tiny.config().data) == tiny.results["test"]
    assert read(tmp_path / "run" / "evaluation" / "results.json") == tiny.results["test"]
    for name in ("predictions.csv", "confusion.csv"):
        mine = tmp_path / "run" / "evaluation" / name
        assert mine.read_text() == (tiny.workdir / name).read_text()
    assert train.train(tiny.config(), tmp_path / "run") == tiny.results
    assert lines(tmp_path / "run") == lines(tiny.workdir)
    assert weights(tmp_path / "run") == weights(tiny.workdir)


@pytest.mark.slow
def test_a_killed_run_ends_as_an_uninterrupted_one(tiny, tmp_path):
    """Killed in the second epoch, after its line was written and before its state was saved."""
    kill = (
        "import os, runpy, sys\n"
        "from ergl_jax.training.checkpoints import Checkpoints\n"
        "save = Checkpoints.save\n"
        "def stop(self, name, state, progress):\n"
        "    if name == 'latest' and progress.epoch == 2: os._exit(9)\n"
        "    save(self, name, state, progress)\n"
        "Checkpoints.save = stop\n"
        "sys.argv[0] = 'run.py'\n"
        "runpy.run_path('run.py', run_name='__main__')\n"
    )
    arguments = [
        "--config=configs/test.py",
        f"--workdir={tmp_path}/run",
        f"--config.data.data_dir={tiny.data_dir}",
    ]

    def command(*program):
        return subprocess.run(
            [sys.executable, *program, *arguments],
            cwd=ROOT,
            # As many devices as here: each draws its own random numbers.
            env=os.environ
            | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": str(jax.device_count())},
            capture_output=True,
            text=True,
        )

    assert command("-c", kill).returncode == 9
    assert not (tmp_path / "run" / "results.json").exists()
    assert [line["epoch"] for line in lines(tmp_path / "run")] == [1, 2]
    done = command("run.py")
    assert done.returncode == 0, done.stderr
    assert "Resuming after epoch 1" in done.stdout and "class_mean_accuracy" in done.stdout
    assert weights(tmp_path / "run") == weights(tiny.workdir)
    assert lines(tmp_path / "run") == lines(tiny.workdir)
    results = read(tmp_path / "run" / "results.json")
    assert {**results, "training_seconds": 0} == {**tiny.results, "training_seconds": 0}


def test_another_configuration_is_refused_and_named(tiny):
    config = tiny.config(data__num_events=3, optimizer__weight_decay=0.5)
    with pytest.raises(InputError) as error:
        train.train(config, tiny.workdir)
    assert "data.num_events was 4, is 3" in str(error.value)
    assert "optimizer.weight_decay was 0.01, is 0.5" in str(error.value)
    assert str(error.value).count(" was ") == 2 and "another directory" in str(error.value)


def test_a_run_is_not_continued_on_other_data(tiny, tmp_path, monkeypatch):
    """A scene renamed in the manifest would exchange the outputs of two scenes."""
    workdir = shutil.copytree(tiny.workdir, tmp_path / "run")
    found = device_data.open_dataset(tiny.config().data)
    renamed = dataclasses.replace(found, scenes=("zebra", *found.scenes[1:]))
    monkeypatch.setattr(device_data, "open_dataset", lambda *_: renamed)
    with pytest.raises(InputError, match="was trained on other data: scenes were .* are .*zebra"):
        train.train(tiny.config(), workdir)
    assert weights(workdir) == weights(tiny.workdir)


def test_changed_recordings_are_reported(tiny, tmp_path, monkeypatch, capsys):
    """Such as a clip that moved from the test split to the training split."""
    workdir = shutil.copytree(tiny.workdir, tmp_path / "run")
    found = dataclasses.replace(device_data.open_dataset(tiny.config().data), fingerprint="0" * 16)
    monkeypatch.setattr(device_data, "open_dataset", lambda *_: found)
    train.train(tiny.config(), workdir)
    assert "have changed since" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train__batch_size": 64}, "batch of 64 from 30"),
        ({"data__num_events": 99}, "data.num_events=99, but the dataset has"),
        ({"model__encoder__width_divisor": 3}, "width_divisor=3 does not divide"),
    ],
)
def test_a_mistake_is_named_and_creates_no_directory(tiny, tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        train.train(tiny.config(**overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_workdir_that_cannot_be_made_is_named(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="workdir .*/file/run can't be made .*/file is a file; "):
        train.train(tiny.config(), tmp_path / "file" / "run")
    with pytest.raises(InputError, match="data_dir .*/file/data can't be made .*/file is a file; "):
        train.train(tiny.config(data__data_dir=str(tmp_path / "file" / "data")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


CNN = {"model__name": "cnn", "optimizer__schedule": "constant", "optimizer__warmup_epochs": 0.0}


def test_other_files_in_place_of_the_bundle_are_named_before_training(tiny, tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "model.onnx").write_text("mine")
    with pytest.raises(InputError, match="bundle has model.onnx in it, which is no part"):
        train.train(tiny.config(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_loss_that_is_not_finite_stops_the_run(tiny, tmp_path):
    config = tiny.config(**CNN, optimizer__learning_rate=1e30)
    with pytest.raises(InputError) as error:
        train.train(config, tmp_path)
    message = str(error.value)
    assert "not finite at step 2 of epoch 1 (scene_loss=" in message and "learning_rate" in message
    assert not (tmp_path / "bundle").exists()


def test_parameters_that_are_not_finite_are_never_saved(tiny, tmp_path):
    """Not even where loss and gradient were: a step an epoch, and a decay that overflows."""
    beyond = {"optimizer__learning_rate": 1e30, "optimizer__weight_decay": 1e12}
    config = tiny.config(**CNN | beyond, train__batch_size=24, train__validate_every=2)
    with pytest.raises(InputError, match="gradient or the update is not finite at step 1 of ep"):
        train.train(config, tmp_path)
    assert not list(tmp_path.glob("checkpoints/*/*"))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Twenty recordings of ten scenes, of different lengths, and a function that lists them."""
    directory = tmp_path_factory.mktemp("recordings")
    for number in range(20):
        rng = np.random.default_rng(number)
        noise = rng.uniform(-0.1, 0.1, 16000 + 2000 * number)
        soundfile.write(directory / f"{number}.wav", noise, 16000)

    def manifest(name, splits, events=()):
        rows = [",".join(["file", "scene", "split", *(f"event:{event}" for event in events)])]
        for number, split in enumerate(splits):
            labels = np.random.default_rng(number).random(len(events)).round(2)
            rows.append(",".join([f"{number}.wav", f"s{number % 10}", split, *map(str, labels)]))
        (directory / f"{name}.csv").write_text("\n".join(rows))
        return str(directory / f"{name}.csv")

    return manifest


def test_a_folder_streamed_without_validation_or_test(tiny, tmp_path, recordings):
    config = tiny.config(
        data__source="folder",
        data__manifest=recordings("mine", ["train"] * 20, ["Rain", "Dog", "Wind", "Bird", "Bus"]),
        data__licence="CC0",
        data__data_dir=str(tmp_path / "data"),
        data__validation_fraction=0.0,
        data__resident="never",
    )
    results = train.train(config, tmp_path / "run")
    assert results["test"] is None and results["validation_class_mean_accuracy"] is None
    assert results["clips"] == {"train": 20} and results["epoch"] == 2  # the last is the result
    assert results["temperature"] == 1.0 and results["validation_calibration"] is None
    assert results["calibration"] == "" and results["max_distance"] is None
    assert [line["epoch"] for line in lines(tmp_path / "run")] == [1, 2]
    assert not any("validation" in name for line in lines(tmp_path / "run") for name in line)
    bundle = bundles.load(tmp_path / "run" / "bundle")
    assert bundle.licence == "CC0" and bundle.dataset == "mine" and len(bundle.events) == 4
    assert not (tmp_path / "run" / "predictions.csv").exists()
    with pytest.raises(InputError, match="no test split"):
        evaluate.evaluate_bundle(tmp_path / "run", config.data)
    assert not (tmp_path / "run" / "evaluation").exists()


def test_a_folder_without_events(tiny, tmp_path, recordings):
    splits = ["train"] * 10 + ["validation"] * 4 + ["test"] * 6
    folder = {
        "data__source": "folder",
        "data__manifest": recordings("silent", splits),
        "data__data_dir": str(tmp_path / "data"),
        "train__validate_every": 2,
    }
    with pytest.raises(InputError, match="no events, which ERGL needs.*model.name=cnn"):
        train.train(tiny.config(**folder), tmp_path / "run")
    results = train.train(tiny.config(**folder, **CNN), tmp_path / "run")
    assert set(results["test"]) == {
        "class_mean_accuracy",
        "accuracy",
        "scene_loss",
        "expected_calibration_error_before",
        "expected_calibration_error",
        "by_scene",
    }
    first, second = lines(tmp_path / "run")
    assert first["event_loss"] == 0 and first["loss"] == first["scene_loss"]
    assert not any("validation" in name for name in first)
    assert second["validation_accuracy"] == results["validation_class_mean_accuracy"]
    assert results["epoch"] == 2 and bundles.load(tmp_path / "run" / "bundle").events == ()


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["test"] * 3, "untrained.csv: scene 's0' has no training clip"),
        (["train"] * 2 + ["test"], "untrained.csv: scene 's2' has no training clip"),
    ],
    ids=["at all", "of a scene"],
)
def test_a_folder_without_training_clips_is_refused(tiny, tmp_path, recordings, splits, message):
    config = tiny.config(
        data__source="folder",
        data__manifest=recordings("untrained", splits),
        data__data_dir=str(tmp_path / "data"),
    )
    with pytest.raises(InputError, match=message):
        train.train(config, tmp_path / "run")


def test_the_best_epoch_is_at_or_after_select_from(tiny, tmp_path, monkeypatch):
    scores = iter([0.9, 0.5, 0.6, 0.4])
    monkeypatch.setattr(
        _Run, "validate", lambda self: {"validation_class_mean_accuracy": next(scores)}
    )
    config = tiny.config(train__epochs=4, train__select_from=2)
    results = train.train(config, tmp_path / "run")
    assert results["epoch"] == 3 and results["validation_class_mean_accuracy"] == 0.6


def test_a_loss_of_events_alone_selects_no_epoch(tiny, tmp_path, monkeypatch):
    scores = iter([0.9, 0.5])
    monkeypatch.setattr(
        _Run, "validate", lambda self: {"validation_class_mean_accuracy": next(scores)}
    )
    results = train.train(tiny.config(train__loss="events"), tmp_path / "run")
    assert results["epoch"] == 2 and results["validation_class_mean_accuracy"] is None


def test_bands_are_normalised_by_the_training_split(tiny, tmp_path, monkeypatch):
    """Measured once, kept when a run is resumed, and saved in the bundle."""
    config = tiny.config(model__name="surrey", model__encoder__width_divisor=32)
    train.train(config, tmp_path / "run")
    for last in (tmp_path / "run" / "checkpoints").glob("*/2"):  # as if killed before it
        shutil.rmtree(last)
    monkeypatch.setattr(device_data, "band_statistics", None)
    train.train(config, tmp_path / "run")
    found = bundles.load(tmp_path / "run" / "bundle").variables["batch_stats"]["standardise"]
    split = sources.open_dataset(config.data).split("train")
    frames = split.arrays()["log_mel"].reshape(-1, 64).astype(np.float64)
    np.testing.assert_allclose(found["mean"], frames.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found["deviation"], frames.std(axis=0), rtol=1e-5)


def test_training_on_a_part_of_each_clip(tiny, tmp_path):
    """The same weights, tested on whole clips; too small a part is reported before it trains."""
    config = tiny.config(augment__crop=0.5)
    results = train.train(config, tmp_path / "run")
    assert results["parameters"] == tiny.results["parameters"] and results["test"]
    assert results["gmac_per_clip"] == tiny.results["gmac_per_clip"]
    with pytest.raises(
        InputError, match=r"augment\.crop=0\.999 leaves 1 of \d+ frames: .*at least"
    ):
        train.train(config.replace(**{"augment.crop": 0.999}), tmp_path / "other")
    assert not (tmp_path / "other").exists()
