"""Scores of a bundle on recordings: abstentions, and the answered ones."""

import dataclasses
import shutil

import numpy as np
import pytest
import soundfile
from rights import obeyed

import ergl_jax
from ergl_jax.config import Config
from ergl_jax.datasets.manifest import Clip, Corpus
from ergl_jax.inference.classify import Model
from ergl_jax.recipes.evaluation import count_trained_on, evaluate
from ergl_jax.training.workdirs import write_json


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


def test_recordings_that_the_run_was_trained_on_are_counted(tmp_path, monkeypatch):
    """By path or, for a copy, by name and content; not those of its other splits."""
    for number in range(4):
        (tmp_path / f"{number}.wav").write_bytes(bytes(100 * [number]))
    splits = ("train", "train", "train", "test")
    rows = [f"{number}.wav,rain,{split}" for number, split in enumerate(splits)]
    (tmp_path / "my.csv").write_text("\n".join(["file,scene,split", *rows]))
    run, copies = tmp_path / "run", tmp_path / "copies"
    run.mkdir(), copies.mkdir()
    fields = {"data.source": "folder", "data.manifest": str(tmp_path / "my.csv")}
    write_json(run / "config.json", Config().replace(**fields).to_dict())
    shutil.copy(tmp_path / "1.wav", copies / "1.wav")
    (copies / "2.wav").write_bytes(bytes(100 * [9]))  # the same name, another recording
    names = [tmp_path / "0.wav", copies / "1.wav", copies / "2.wav", tmp_path / "3.wav"]
    none = np.zeros(0, np.float32)
    clips = [Clip(str(name), 0, "test", "", none, lambda: None) for name in names]
    corpus = Corpus("mine", ("rain",), (), clips, "", "")
    (copies / "1.wav").chmod(0)
    with obeyed():
        assert count_trained_on(run, corpus) == 1
    (copies / "1.wav").chmod(0o600)
    assert count_trained_on(run, corpus) == 2
    monkeypatch.setenv("HOME", str(tmp_path))
    fields["data.manifest"] = "~/my.csv"
    write_json(run / "config.json", Config().replace(**fields).to_dict())
    assert count_trained_on(run, corpus) == 2
    (tmp_path / "0.wav").unlink()
    assert count_trained_on(run, corpus) == 1
    (tmp_path / "config.json").write_text("[]")
    assert count_trained_on(tmp_path, corpus) is None
    (tmp_path / "my.csv").unlink()
    assert count_trained_on(run, corpus) is count_trained_on(tmp_path / "nowhere", corpus) is None
