"""Predictions of a split, and a bundle against a dataset that differs from its own."""

import csv
import dataclasses

import jax
import matplotlib.image
import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import confusion_matrix

from ergl_jax import bundle as bundles
from ergl_jax import errors
from ergl_jax.audio import get_front_end
from ergl_jax.datasets import builder, sources
from ergl_jax.datasets.manifest import Clip, Corpus
from ergl_jax.errors import InputError
from ergl_jax.training import evaluate, metrics, train


@pytest.fixture(scope="module")
def dataset(tiny):
    return builder.load(next(tiny.data_dir.glob("*/*/*")))


@pytest.fixture(scope="module")
def bundle(tiny):
    return bundles.load(tiny.workdir / "bundle")


@pytest.fixture(scope="module")
def evaluated(bundle, dataset):
    return evaluate.evaluate(bundle, dataset, threshold=0.05)


def test_predictions_and_scores_are_the_models(bundle, dataset, evaluated):
    predictions, scores = evaluated
    arrays = dataset.split("test").arrays()
    model = bundle.build()
    output = jax.jit(lambda x: model.apply(bundle.variables, x, train=False))(arrays["log_mel"])
    np.testing.assert_allclose(predictions.scene_logits, output.scene_logits, rtol=1e-4, atol=1e-4)
    probabilities = expit(np.asarray(output.event_logits))
    np.testing.assert_allclose(predictions.event_probabilities, probabilities, atol=1e-5)
    np.testing.assert_array_equal(predictions.scene, arrays["scene"])
    np.testing.assert_array_equal(predictions.events, arrays["events"])

    columns = [dataset.events.index(name) for name in bundle.events]
    assert columns != sorted(columns)  # ordered by rank
    logits, scene = predictions.scene_logits, predictions.scene
    labels = predictions.events[:, columns]
    expected = metrics.scene_metrics(logits, scene)
    expected |= metrics.event_metrics(predictions.event_probabilities, labels, threshold=0.05)
    assert scores == expected | metrics.calibration_errors(logits, scene, bundle.temperature)


def test_accuracy_by_scene_and_by_columns_of_the_corpus(bundle, dataset, evaluated, tmp_path):
    split = dataset.split("test")
    names = [split[i]["name"] for i in range(len(split))]
    devices = {name: "ab"[number % 2] for number, name in enumerate(names)}
    clips = [
        Clip(name, 0, "test", "", np.zeros(0), pytest.fail, {"device": device})
        for name, device in devices.items()
    ]
    corpus = Corpus("mine", (), (), clips, "", "")
    found = evaluate.test_bundle(bundle, dataset, corpus, threshold=0.05, directory=tmp_path)
    predictions, scores = evaluated
    assert found.items() >= scores.items()
    right = predictions.scene_logits.argmax(axis=1) == predictions.scene
    assert {name: each["accuracy"] for name, each in found["by_device"].items()} == {
        "a": right[::2].mean(),
        "b": right[1::2].mean(),
    }
    assert sum(each["clips"] for each in found["by_device"].values()) == len(names)
    assert set(found["by_scene"]) == {bundle.scenes[index] for index in predictions.scene}
    mean = np.mean([each["accuracy"] for each in found["by_scene"].values()])
    assert mean == pytest.approx(found["class_mean_accuracy"])
    lines = evaluate.describe(found)
    assert lines[-1].split() == ["b", f"{right[1::2].mean():.4f}", str(len(right[1::2]))]


class Split:
    """Ten clips; the log-mel of each is its number throughout."""

    def __len__(self):
        return 10

    def __getitem__(self, i):
        clip = np.full((2, 3), i, np.float32)
        return dict(log_mel=clip, scene=np.int32(i), events=np.zeros(0), name=f"clip {i}")


def test_padding_is_removed(monkeypatch):
    """Ten clips in batches of four."""
    monkeypatch.setattr(evaluate, "BATCH", 4)
    monkeypatch.setattr(jax, "local_device_count", lambda: 2)

    def run(variables, log_mel):
        assert log_mel.shape == (4, 2, 3)
        return {"scene_logits": variables * log_mel[:, 0]}

    found = evaluate.predict(run, 2, Split())
    np.testing.assert_array_equal(found.scene_logits[:, 0], 2 * np.arange(10))
    np.testing.assert_array_equal(found.scene, np.arange(10))
    assert found.event_probabilities is None


def test_outputs_that_are_not_finite_are_refused():
    def run(variables, log_mel):
        return {"scene_logits": np.where(log_mel[:, 0] == 9, np.nan, 0)}

    with pytest.raises(InputError, match="not finite.*optimizer.learning_rate"):
        evaluate.predict(run, None, Split())


def test_scenes_and_events_are_matched_by_name(bundle, dataset, evaluated):
    turned = dataclasses.replace(
        dataset, scenes=dataset.scenes[::-1], events=dataset.events[1:] + dataset.events[:1]
    )
    predictions, scores = evaluate.evaluate(bundle, turned, threshold=0.05)
    np.testing.assert_array_equal(predictions.scene, 9 - evaluated[0].scene)
    labels = predictions.events[:, [turned.events.index(name) for name in bundle.events]]
    error = np.mean((predictions.event_probabilities - labels) ** 2)
    assert scores["event_mse"] == pytest.approx(error, rel=1e-5)
    assert scores["event_mse"] != pytest.approx(evaluated[1]["event_mse"], rel=1e-5)

    others = dataclasses.replace(dataset, events=tuple(f"no {name}" for name in dataset.events))
    _, scores = evaluate.evaluate(bundle, others, threshold=0.05)
    assert scores == {name: x for name, x in evaluated[1].items() if "event" not in name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"front_end": get_front_end("paper")}, "paper.*set data.front_end=panns_16k"),
        ({"clip_seconds": 3.0}, "clip_seconds=3.0.*set data.clip_seconds=2.0"),
        ({"pad": "repeat"}, "pad=repeat.*set data.pad=zero"),
        ({"sizes": {"train": 30}}, "no test split"),
        ({"scenes": ("moon",) * 10}, "scene 'moon'"),
    ],
)
def test_a_dataset_that_does_not_fit_is_refused(bundle, dataset, change, message):
    with pytest.raises(InputError, match=message):
        evaluate.evaluate(bundle, dataclasses.replace(dataset, **change), threshold=0.5)


def test_a_scene_that_the_bundle_lacks_is_named_with_both_files(tiny, dataset, monkeypatch):
    strange = dataclasses.replace(dataset, scenes=("moon", *dataset.scenes[1:]))
    monkeypatch.setattr(evaluate, "open_dataset", lambda *_: strange)
    with pytest.raises(InputError, match=f"{tiny.workdir}/bundle on synthetic: .*scene 'moon'"):
        evaluate.evaluate_bundle(tiny.workdir, tiny.config().data)


@pytest.mark.parametrize(
    ("sizes", "single"),
    [
        ({"train": [3, 0, 0], "validation": [0, 2, 0], "test": [1, 1, 0]}, "train, validation"),
        ({"train": [3, 1, 1], "test": [0, 0, 9]}, "test"),
        ({"train": [1, 1, 1], "validation": [1, 0, 1], "test": [1, 1, 0]}, None),
    ],
)
def test_splits_of_one_scene_are_warned_of(tiny, dataset, monkeypatch, capfd, sizes, single):
    found = dataclasses.replace(dataset, class_sizes=sizes)
    errors.warn.cache_clear()
    sources.warn_of_one_scene("my.csv", found.class_sizes)
    expected = f"warning: my.csv: all {single} clips are of one scene. An accuracy of 1"
    error = capfd.readouterr().err
    assert error.startswith(expected) if single else not error

    class Warned(Exception):
        pass

    def stop(*_, **__):
        raise Warned

    monkeypatch.setattr(evaluate, "open_dataset", lambda *_: found)
    monkeypatch.setattr(evaluate, "test_bundle", stop)
    monkeypatch.setattr(train.device_data, "open_dataset", lambda *_: found)
    monkeypatch.setattr(train.sources, "check_prepared", lambda *_: None)
    monkeypatch.setattr(train, "_Run", stop)
    with pytest.raises(Warned):
        evaluate.evaluate_bundle(tiny.workdir, tiny.config().data)
    assert ("all test clips" in capfd.readouterr().err) == (single == "test")
    errors.warn.cache_clear()
    with pytest.raises(Warned):
        train.train(tiny.config(), tiny.workdir / "new")
    assert ("one scene" in capfd.readouterr().err) == bool(single)


def test_the_files_hold_the_predictions(tmp_path, evaluated, dataset, bundle):
    predictions, scenes = evaluated[0], dataset.scenes
    bundle = dataclasses.replace(bundle, temperature=2.0)
    names = dataset.split("test").arrays()["name"]
    evaluate.write(tmp_path, predictions, names, bundle)
    top = predictions.scene_logits.argmax(axis=1)
    header, *rows = csv.reader((tmp_path / "confusion.csv").read_text().splitlines())
    assert tuple(header[1:]) == tuple(row[0] for row in rows) == scenes
    expected = confusion_matrix(predictions.scene, top, labels=range(10))
    np.testing.assert_array_equal([[int(x) for x in row[1:]] for row in rows], expected)

    _, *rows = csv.reader((tmp_path / "predictions.csv").read_text().splitlines())
    for row, name, truth, best in zip(rows, names, predictions.scene, top, strict=True):
        assert row[:3] == [name, scenes[truth], scenes[best]]
    found = [[float(x) for x in row[3:]] for row in rows]
    np.testing.assert_allclose(found, softmax(predictions.scene_logits / 2, axis=1), atol=1e-6)

    picture = matplotlib.image.imread(tmp_path / "confusion.png")
    assert min(picture.shape[:2]) > 600 and picture[..., :3].std() > 0.05
