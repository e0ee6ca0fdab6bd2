"""ergl atlas from the command line to its files."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import soundfile

from ergl_jax import bundle as bundles
from ergl_jax.bundle import Bundle
from ergl_jax.cli import main


def atlas(out, *workdirs):
    return main(["atlas", *map(str, workdirs), f"--out={out}"])


@pytest.fixture
def other(tiny, tmp_path):
    """The tiny run's bundle in a work directory of the test's own, with its config.json."""
    shutil.copytree(tiny.workdir / "bundle", tmp_path / "other" / "bundle")
    shutil.copy(tiny.workdir / "config.json", tmp_path / "other")
    return tmp_path / "other"


def change_data(workdir, **changes):
    config = json.loads((workdir / "config.json").read_text())
    config["data"] |= changes
    (workdir / "config.json").write_text(json.dumps(config))


def error(capsys):
    """What was printed: one line, but for the bars of progress."""
    said = capsys.readouterr()
    assert said.out == "" and "Traceback" not in said.err
    lines = said.err.replace("\r", "\n").split("\n")
    (line,) = [line for line in lines if line.strip() and "clips/s" not in line and "|" not in line]
    assert line.startswith("error: ")
    return line


def test_one_run(tiny, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    assert atlas(out, tiny.workdir) == 0
    said = capsys.readouterr().out
    accuracy = tiny.results["test"]["accuracy"]
    assert said == (
        f"10 clips, {100 * accuracy:.1f} % named right\n"
        f"Wrote {out}/atlas.html and {out}/atlas.json\n"
    )
    assert {path.name for path in out.iterdir()} == {"atlas.html", "atlas.json"}
    found = json.loads((out / "atlas.json").read_text())
    assert (found["runs"], found["agreement"]) == ([str(tiny.workdir)], None)
    bundle = bundles.load(tiny.workdir / "bundle")
    assert tuple(found["events"]) == bundle.events and found["dataset"] == bundle.dataset
    assert found["accuracy"] == pytest.approx(accuracy)


def test_two_runs_are_compared(tiny, other, tmp_path, capsys):
    assert atlas(tmp_path / "out", tiny.workdir, other) == 0
    assert "over 10 pairs of equal answers: events 1.00, relations 1.00" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "atlas.json").read_text())
    assert found["runs"] == [str(tiny.workdir), str(other)]
    assert found["agreement"]["clips"] == 10
    assert found["agreement"]["events"] == pytest.approx(1)


def test_no_work_directory_is_a_line(tiny, other, tmp_path, capsys):
    assert atlas(tmp_path / "out", tmp_path) == 2
    assert f"{tmp_path}/bundle is not a bundle" in error(capsys)
    for content in ("not json", "[1]", "{}"):
        (other / "config.json").write_text(content)
        assert atlas(tmp_path / "out", other) == 2
        assert f"{other} is no run's work directory" in error(capsys)
    (other / "config.json").unlink()
    assert atlas(tmp_path / "out", other) == 2
    assert f"{other} is no run's work directory" in error(capsys)
    assert not (tmp_path / "out").exists()


def test_a_run_without_a_graph_is_a_line(other, tmp_path, capsys):
    import jax

    trained = bundles.load(other / "bundle")
    plain = dataclasses.replace(trained, model=dict(trained.model) | {"name": "cnn"})
    frames = trained.front_end.num_frames(trained.clip_seconds)
    log_mel = np.zeros((1, frames, trained.front_end.n_mels), np.float32)
    variables = plain.build().init(jax.random.key(0), log_mel, train=False)
    Bundle.save(dataclasses.replace(plain, variables=variables), other / "bundle")
    assert atlas(tmp_path / "out", other) == 2
    assert "the bundle's model is 'cnn', which has no graph" in error(capsys)


def test_no_test_split_is_a_line(other, tmp_path, capsys):
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * 16000)
    soundfile.write(tmp_path / "a.wav", noise, 16000)
    manifest = tmp_path / "clips.csv"
    manifest.write_text("file,scene,split\na.wav,park,train\n")
    change_data(other, source="folder", manifest=str(manifest), data_dir=str(tmp_path / "data"))
    assert atlas(tmp_path / "out", other) == 2
    assert "has no test split" in error(capsys)


def test_data_of_another_length_than_the_bundles_are_a_line(other, tmp_path, capsys):
    change_data(other, clip_seconds=3.0, data_dir=str(tmp_path / "data"))
    assert atlas(tmp_path / "out", other) == 2
    assert f"{other}: the dataset has clips of 3.0 s, the bundle wants 2.0 s" in error(capsys)


def test_runs_of_different_clips_are_a_line(tiny, other, tmp_path, capsys):
    change_data(other, test_clips_per_scene=2, data_dir=str(tmp_path / "data"))
    assert atlas(tmp_path / "out", tiny.workdir, other) == 2
    assert "the runs were tested on different clips" in error(capsys)


def test_an_out_that_is_a_file_is_a_line(tiny, tmp_path, capsys):
    (tmp_path / "out").write_text("kept")
    assert atlas(tmp_path / "out", tiny.workdir) == 2
    assert "--out" in error(capsys) and (tmp_path / "out").read_text() == "kept"
