"""Scores of a bundle on recordings: abstentions, and the answered ones."""

import dataclasses

import numpy as np
import pytest
import soundfile

import ergl_jax
from ergl_jax.datasets.manifest import Clip, Corpus
from ergl_jax.inference.classify import Model
from ergl_jax.recipes.evaluation import evaluate


def test_abstentions_are_counted_and_the_others_scored(tiny, tmp_path):
    model = ergl_jax.load(tiny.workdir)
    paths = [str(tmp_path / f"{i}.wav") for i in range(4)]
    for i, path in enumerate(paths):
        soundfile.write(path, np.random.default_rng(i).normal(0, 0.1**i, 32000), 16000)
    found = model.classify(paths)
    distances = np.array([result.distance for result in found])
    limit = np.sort(distances)[1]  # two are answered
    limits = dataclasses.replace(model.bundle.known, distances=np.full(20, limit, np.float32))
    model = Model(dataclasses.replace(model.bundle, known=limits))
    scenes = [found[0].scene, *(model.scenes[0] for _ in paths[1:])]
    none = np.zeros(0, np.float32)
    clips = [
        Clip(path, model.scenes.index(scene), "test", "", none, lambda: None, {"day": path[-5:]})
        for path, scene in zip(paths, scenes, strict=True)
    ]
    corpus = Corpus("mine", model.scenes, (), clips, "", "")
    scores = evaluate(model, corpus, failed=pytest.fail)
    known = np.array([result.known for result in model.classify(paths)])
    right = np.array([result.scene == scene for result, scene in zip(found, scenes, strict=True)])
    assert scores["abstained"] == np.mean(~known) and 0 < known.sum() < len(paths)
    assert scores["answered_accuracy"] == right[known].mean()
    assert scores["accuracy"] == right.mean()
    by_day = [{"accuracy": value, "clips": 1} for value in right]
    assert list(scores["by_day"].values()) == by_day
