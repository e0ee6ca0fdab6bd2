"""Section 3.1 in miniature: archives, labels, ranking, training and evaluation on TUT 2018."""

import csv
import urllib.parse
from pathlib import Path

import panns_checkpoint
import pytest

from configs import test as test_config
from ergl_jax import bundle
from ergl_jax.datasets import tut2018
from ergl_jax.datasets.events import read_list
from ergl_jax.downloads import file_md5
from ergl_jax.errors import InputError
from ergl_jax.training import evaluate, train


@pytest.fixture
def run(load_script):
    """Runs a script of data_prep, which must succeed."""

    def run(name, *arguments):
        assert load_script(f"data_prep/{name}.py").main(list(arguments)) == 0

    return run


@pytest.fixture
def config(tmp_path):
    config = test_config.get_config()
    config.data.update(source="tut2018", data_dir=str(tmp_path / "data"), clip_seconds=0.4)
    return config


def pseudo_label(run, root, labels, web, monkeypatch):
    """By a PANN of random weights, downloaded and ported."""
    import torch_panns

    name = panns_checkpoint.CHECKPOINTS["Cnn14_16k"]
    path = torch_panns.save(torch_panns.PANN("cnn14", "panns_16k", 64), root / name.file)
    web.files[f"files/{urllib.parse.quote(name.file)}"] = path.read_bytes()
    mine = name._replace(md5=file_md5(path))
    monkeypatch.setitem(panns_checkpoint.CHECKPOINTS, "Cnn14_16k", mine)
    panns, bundle = root.parent / "panns", root.parent / "teacher"
    flags = [f"--record={web.url('')[:-1]}", f"--download_dir={panns}", f"--out={bundle}"]
    run("port_panns", "--download=Cnn14_16k", *flags)
    flags = [f"--bundle={bundle}", f"--manifest={root}/manifest.csv", f"--out={labels}"]
    run("pseudo_label", *flags, "--clip_seconds=0.4")


@pytest.mark.slow
def test_from_the_archives_to_the_evaluation(run, fake_tut, web, config, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    settings = [f"--data_dir={tmp_path}/data", "--front_end=panns_16k", "--clip_seconds=0.4"]
    run("prepare_dataset", "tut2018", "--validation_fraction=0.25", *settings)
    root = tmp_path / "data" / "tut2018"

    config.data.update(events=str(tmp_path / "list.txt"), num_events=4)
    with pytest.raises(InputError, match="list.txt can't be read"):
        train.train(config, tmp_path / "run")

    labels = root / "manifest.events.npz"
    pseudo_label(run, root, labels, web, monkeypatch)
    flags = [f"--labels={labels}", f"--manifest={root}/manifest.csv", "--top=6"]
    run("rank_events", *flags, "--validation_fraction=0.25", f"--out={tmp_path}/list.txt")
    ranked = read_list(str(tmp_path / "list.txt"))

    results = train.train(config, tmp_path / "run")
    assert results["clips"] == {"train": 18, "validation": 6, "test": 12}
    trained = bundle.load(tmp_path / "run" / "bundle")
    assert trained.events == tuple(ranked[:4])
    assert trained.scenes == ("airport", "metro_station", "tram")
    assert (trained.licence, trained.dataset) == (tut2018.LICENCE, "tut2018")
    scores = evaluate.evaluate_bundle(tmp_path / "run", config.data)
    assert scores == results["test"] and 0 <= scores["class_mean_accuracy"] <= 1
    with open(tmp_path / "run/evaluation/predictions.csv", newline="", encoding="utf-8") as file:
        tested = {Path(row["clip"]).stem for row in csv.DictReader(file)}
    assert tested == {
        Path(line).stem
        for line in (root / "evaluation_setup" / "fold1_test.txt").read_text().split()
    }


def test_the_papers_list_is_refused_before_any_data_is_touched(config, tmp_path):
    config.data.events = "paper"
    with pytest.raises(InputError, match="not published"):
        train.train(config, tmp_path / "run")
    assert not list(tmp_path.iterdir())
