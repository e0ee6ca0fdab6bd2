"""ergl atlas from the command line to its files."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from ergl_jax.cli import main


def atlas(out, *workdirs):
    return main(["atlas", *map(str, workdirs), f"--out={out}"])


@pytest.fixture
def other(tiny, tmp_path):
    """A work directory of the test's own with the tiny run's bundle and config.json."""
    shutil.copytree(tiny.workdir / "bundle", tmp_path / "other" / "bundle")
    shutil.copy(tiny.workdir / "config.json", tmp_path / "other")
    return tmp_path / "other"


def change_data(workdir, **changes):
    config = json.loads((workdir / "config.json").read_text())
    config["data"] |= {"data_dir": str(workdir / "data"), **changes}
    (workdir / "config.json").write_text(json.dumps(config))


def error(capsys):
    """The only line that was printed, apart from progress bars."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = [
        x for x in captured.err.replace("\r", "\n").split("\n") if x.strip() and "|" not in x
    ]
    assert line.startswith("error: ")
    return line


def test_one_run_and_two_runs(tiny, other, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    assert atlas(out, tiny.workdir / "bundle") == 0
    correct = 100 * tiny.results["test"]["accuracy"]
    expected = f"10 clips, {correct:.1f} % correct\nWrote {out}/atlas.html and {out}/atlas.json\n"
    assert capsys.readouterr().out == expected
    assert {path.name for path in out.iterdir()} == {"atlas.html", "atlas.json"}
    assert json.loads((out / "atlas.json").read_text())["agreement"] is None
    page = (out / "atlas.html").read_text()
    assert "<audio" in page and "not playable" not in page
    assert atlas(out, tiny.workdir, other) == 0
    printed = capsys.readouterr().out
    assert "over 10 pairs" in printed and "events 1.00, relations 1.00" in printed
    numbers = json.loads((out / "atlas.json").read_text())
    assert numbers["runs"] == [str(tiny.workdir), str(other)]
    assert numbers["agreement"] == pytest.approx({"events": 1, "relations": 1, "clips": 10})


def test_a_directory_without_a_usable_run_is_refused(tiny, other, tmp_path, capsys):
    out = tmp_path / "out"
    assert atlas(out, tmp_path) == 2
    assert f"{tmp_path}/bundle is not a bundle" in error(capsys)
    change_data(other, clip_seconds=3.0)
    assert atlas(out, other) == 2
    assert f"{other}: the dataset has clip_seconds=3.0, the bundle needs" in error(capsys)
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 32000), 16000)
    (tmp_path / "clips.csv").write_text("file,scene,split\na.wav,park,train\n")
    manifest = str(tmp_path / "clips.csv")
    change_data(other, source="folder", manifest=manifest, clip_seconds=2.0)
    assert atlas(out, other) == 2
    assert "has no test split" in error(capsys)
    for content in ("not json", "[1]", "{}"):
        (other / "config.json").write_text(content)
        assert atlas(out, other) == 2
        assert f"{other}/config.json" in error(capsys)
    assert not out.exists()
    out.write_text("kept")
    assert atlas(out, tiny.workdir) == 2
    assert "--out" in error(capsys) and out.read_text() == "kept"


def test_runs_of_different_clips_are_refused(tiny, other, tmp_path, capsys):
    change_data(other, test_clips_per_scene=2)
    assert atlas(tmp_path / "out", tiny.workdir, other) == 2
    assert "the runs were tested on different clips" in error(capsys)
