"""Predictions of a split, and a bundle against a dataset that isn't quite its own."""

import contextlib
import csv
import dataclasses

import jax
import matplotlib.image
import numpy as np
import pytest

from ergl_jax import bundle as bundles
from ergl_jax.audio import get_front_end
from ergl_jax.datasets import builder
from ergl_jax.errors import InputError
from ergl_jax.training import evaluate, metrics
from ergl_jax.training.step import make_predict, replicate


@pytest.fixture(scope="module")
def dataset(tiny):
    return builder.load(next(tiny.data_dir.glob("*/*/*")))


@pytest.fixture(scope="module")
def bundle(tiny):
    return bundles.load(tiny.workdir / "bundle")


@pytest.fixture(scope="module")
def evaluated(bundle, dataset):
    return evaluate.evaluate(bundle, dataset, threshold=0.05, batch_size=64)


def test_predictions_are_the_models_clip_by_clip(bundle, dataset, evaluated):
    predictions, _ = evaluated
    arrays = dataset.split("test").arrays()
    model = bundle.build()
    output = jax.jit(lambda x: model.apply(bundle.variables, x, train=False))(arrays["log_mel"])
    np.testing.assert_allclose(predictions.scene_logits, output.scene_logits, rtol=1e-4, atol=1e-4)
    probabilities = 1 / (1 + np.exp(-output.event_logits))
    np.testing.assert_allclose(predictions.event_probabilities, probabilities, atol=1e-5)
    np.testing.assert_array_equal(predictions.scene, arrays["scene"])
    np.testing.assert_array_equal(predictions.events, arrays["events"])


class Split:
    """Ten clips; the log-mel of each is its number throughout."""

    def __len__(self):
        return 10

    def __getitem__(self, i):
        clip = np.full((2, 3), i, np.float32)
        return dict(log_mel=clip, scene=np.int32(i), events=np.zeros(0), name=f"clip {i}")


def test_padding_leaves_no_trace():
    """Ten clips in batches of four: what comes out is what went in."""

    def run(variables, log_mel):
        assert log_mel.shape == (4, 2, 3)
        return {"scene_logits": variables * log_mel[:, 0]}

    found = evaluate.predict(run, 2, Split(), 4)
    np.testing.assert_array_equal(found.scene_logits[:, 0], 2 * np.arange(10))
    np.testing.assert_array_equal(found.scene, np.arange(10))
    assert found.event_probabilities is None


def test_two_processes_share_a_split(monkeypatch):
    """Each reads its clips alone, and both have all of them in order; here one after the other."""
    read, shares = [], []

    def run(variables, log_mel):
        read[-1] += [int(number) for number in log_mel[:, 0, 0]]
        return {"scene_logits": log_mel[:, 0]}

    def gather(share):
        shares.append(share)
        if len(shares) == 1:
            raise KeyboardInterrupt
        return {name: np.stack([each[name] for each in shares]) for name in share}

    monkeypatch.setattr(evaluate.hosts, "gather", gather)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for index in (0, 1):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        read.append([])
        with pytest.raises(KeyboardInterrupt) if index == 0 else contextlib.nullcontext():
            found = evaluate.predict(run, None, Split(), 2)
    assert read == [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 0, 0]]  # the last two fill up
    np.testing.assert_array_equal(found.scene, np.arange(10))
    np.testing.assert_array_equal(found.scene_logits[:, 0], np.arange(10))


@pytest.mark.parametrize("name", ["scene_logits", "event_probabilities"])
def test_outputs_of_a_model_that_diverged_are_refused(name):
    def run(variables, log_mel):
        outputs = {"scene_logits": log_mel[:, 0], "event_probabilities": log_mel[:, 0]}
        return outputs | {name: np.where(log_mel[:, 0] == 9, np.nan, 0)}

    with pytest.raises(InputError, match="not finite.*--config.optimizer.learning_rate"):
        evaluate.predict(run, None, Split(), 5)


def test_scores_are_those_of_the_bundles_events(bundle, dataset, evaluated):
    predictions, scores = evaluated
    columns = [dataset.events.index(name) for name in bundle.events]
    assert columns != sorted(columns)  # they are in the order of their rank
    assert scores == metrics.scene_metrics(
        predictions.scene_logits, predictions.scene
    ) | metrics.event_metrics(
        predictions.event_probabilities, predictions.events[:, columns], threshold=0.05
    ) | evaluate.calibration_errors(predictions, bundle.temperature)


def test_calibration_is_told_with_the_bundles_temperature_and_without(bundle, dataset):
    found = {}
    for temperature in (1.0, 3.0):
        changed = dataclasses.replace(bundle, temperature=temperature)
        _, found[temperature] = evaluate.evaluate(changed, dataset, threshold=0.05, batch_size=64)
    before, after = "expected_calibration_error_before", "expected_calibration_error"
    assert found[1.0][before] == found[1.0][after] == found[3.0][before] != found[3.0][after]


def test_scenes_and_events_are_matched_by_name(bundle, dataset, evaluated):
    turned = dataclasses.replace(
        dataset, scenes=dataset.scenes[::-1], events=dataset.events[1:] + dataset.events[:1]
    )
    predictions, scores = evaluate.evaluate(bundle, turned, threshold=0.05, batch_size=64)
    np.testing.assert_array_equal(predictions.scene, 9 - evaluated[0].scene)
    labels = predictions.events[:, [turned.events.index(name) for name in bundle.events]]
    error = np.mean((predictions.event_probabilities - labels) ** 2)
    assert scores["event_mse"] == pytest.approx(error, rel=1e-5)
    assert scores["event_mse"] != pytest.approx(evaluated[1]["event_mse"], rel=1e-5)


def test_a_dataset_without_the_events_is_scored_on_scenes(bundle, dataset, evaluated):
    silent = dataclasses.replace(dataset, events=tuple(f"no {name}" for name in dataset.events))
    _, scores = evaluate.evaluate(bundle, silent, threshold=0.05, batch_size=64)
    assert scores == {name: x for name, x in evaluated[1].items() if "event" not in name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"front_end": get_front_end("paper")}, "'paper'.*--config.data.front_end=panns_16k"),
        ({"clip_seconds": 3.0}, "3.0 s.*--config.data.clip_seconds=2.0"),
        ({"pad": "repeat"}, "pad='repeat'.*--config.data.pad=zero"),
        ({"sizes": {"train": 30}}, "no test split"),
        ({"scenes": ("moon",) * 10}, "scene 'moon'"),
    ],
)
def test_what_cannot_be_compared_is_refused(bundle, dataset, change, message):
    with pytest.raises(InputError, match=message):
        evaluate.evaluate(
            bundle, dataclasses.replace(dataset, **change), threshold=0.5, batch_size=64
        )


def test_the_files_say_what_was_predicted(tmp_path, evaluated, dataset, bundle):
    predictions, scenes = evaluated[0], dataset.scenes
    bundle = dataclasses.replace(bundle, temperature=2.0)
    evaluate.write(tmp_path, predictions, dataset.split("test"), bundle)
    with open(tmp_path / "confusion.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header[1:]) == tuple(row[0] for row in rows) == scenes
    counts = np.array([[int(x) for x in row[1:]] for row in rows])
    expected = np.zeros((10, 10), int)
    np.add.at(expected, (predictions.scene, predictions.scene_logits.argmax(axis=1)), 1)
    np.testing.assert_array_equal(counts, expected)

    with open(tmp_path / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    exp = np.exp(predictions.scene_logits.astype(np.float64) / 2)
    names = dataset.split("test").arrays()["name"]
    for number, row in enumerate(rows):
        assert row["clip"] == names[number]
        assert row["scene"] == scenes[predictions.scene[number]]
        assert row["predicted"] == scenes[predictions.scene_logits[number].argmax()]
        shares = [float(row[scene]) for scene in scenes]
        np.testing.assert_allclose(shares, exp[number] / exp[number].sum(), atol=1e-6)
    assert len(rows) == 10

    picture = matplotlib.image.imread(tmp_path / "confusion.png")
    assert min(picture.shape[:2]) > 600 and picture[..., :3].std() > 0.05


def test_a_batch_is_predicted_alike_whatever_else_is_in_it(bundle, dataset):
    run = make_predict(bundle.build())
    variables = replicate(dict(bundle.variables))
    split = dataset.split("test")
    whole = evaluate.predict(run, variables, split, 16)
    parts = evaluate.predict(run, variables, split, 4)
    np.testing.assert_allclose(whole.scene_logits, parts.scene_logits, rtol=1e-4, atol=1e-4)
