"""prepare_dataset.py as a user runs it: output, exit status, real recordings."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ergl_jax.datasets import builder

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "data_prep" / "prepare_dataset.py"
SHARED = Path(os.environ.get("ERGL_SHARED_DATA") or ROOT.parent / "shared" / "data")


@pytest.fixture(scope="module")
def main(load_script):
    return load_script("data_prep/prepare_dataset.py").main


@pytest.fixture
def manifest(tmp_path):
    """Ten clips to train and two to test, of two scenes, in folds 1 to 6."""
    rows = ["file,scene,split,fold,group,event:Speech"]
    for i in range(12):
        noise = np.random.default_rng(i).uniform(-0.1, 0.1, 4000)
        soundfile.write(tmp_path / f"{i}.wav", noise, 16000)
        split = "train" if i < 10 else "test"
        rows.append(f"{i}.wav,{'bus' if i % 2 else 'tram'},{split},{i // 2 + 1},,0.5")
    path = tmp_path / "my.csv"
    path.write_text("\n".join(rows))
    return path


def arguments(manifest, *more):
    data_dir = manifest.parent / "data"
    settings = ["--front_end=panns_16k", "--clip_seconds=0.25", f"--data_dir={data_dir}"]
    return [f"--manifest={manifest}", *settings, *more]


def test_prepares_and_reports(main, manifest, capfd):
    assert main(arguments(manifest, "--licence=CC0")) == 0
    lines = capfd.readouterr().out.splitlines()
    dataset = builder.load(lines[0])
    assert dataset.sizes == {"train": 8, "validation": 2, "test": 2} and dataset.licence == "CC0"
    assert [line.split() for line in lines[1:]] == [
        ["scene", "train", "validation", "test"],
        ["bus", "4", "1", "1"],
        ["tram", "4", "1", "1"],
        ["all", "8", "2", "2"],
    ]


def test_folds_and_fraction(main, manifest, capfd):
    assert main(arguments(manifest, "--test_folds=1,2", "--validation_folds=3")) == 0
    dataset = builder.load(capfd.readouterr().out.splitlines()[0])
    assert dataset.sizes == {"train": 6, "validation": 2, "test": 4}
    assert dataset.split("test").arrays()["name"] == ["0.wav", "1.wav", "2.wav", "3.wav"]
    assert main(arguments(manifest, "--validation_fraction=0")) == 0
    assert builder.load(capfd.readouterr().out.splitlines()[0]).sizes == {"train": 10, "test": 2}


def test_an_edited_recording_is_prepared_again(main, manifest, capfd):
    def log_mel():
        assert main(arguments(manifest)) == 0
        dataset = builder.load(capfd.readouterr().out.splitlines()[0])
        return dataset.split("test")[0]["log_mel"]

    before = log_mel()
    soundfile.write(manifest.parent / "10.wav", np.full(5000, 0.1), 16000)
    assert np.abs(log_mel() - before).max() > 1


def test_status_one_when_a_clip_fails(main, manifest, capfd):
    (manifest.parent / "3.wav").write_bytes(b"no audio")
    (manifest.parent / "4.wav").unlink()
    for _ in range(2):  # built, then reused
        assert main(arguments(manifest)) == 1
        output = capfd.readouterr()
        dataset = builder.load(output.out.splitlines()[0])
        assert [name for name, _ in dataset.failures] == ["3.wav", "4.wav"]
        assert str(dataset.path / "failures.csv") in output.err


def test_status_two_and_one_line_on_wrong_input(main, manifest, capfd):
    (manifest.parent / "3.wav").write_bytes(b"no audio")
    wrong = [
        (["--strict"], "3.wav"),
        (["--front_end=mel"], "panns_16k"),
        (["--test_folds=9"], "fold '9'"),
        (["--validation_fraction=2"], "fraction"),
    ]
    for more, part in wrong:
        assert main(arguments(manifest, *more)) == 2
        output = capfd.readouterr()
        assert output.out == "" and part in output.err.splitlines()[-1]
        assert "Traceback" not in output.err


def test_the_command_itself_says_what_is_missing(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), f"--manifest={tmp_path}/none.csv"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "none.csv" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("error")
def test_real_recordings_go_through_without_a_warning(main, tmp_path, capfd):
    clips = sorted((SHARED / "urban_clips").glob("*.wav"))
    if not clips:
        pytest.skip(f"no recordings in {SHARED}/urban_clips")
    rows = [f"{path},{path.stem},test" for path in clips]
    path = tmp_path / "urban.csv"
    path.write_text("\n".join(["file,scene,split", *rows]))
    assert main([f"--manifest={path}", f"--data_dir={tmp_path}/data"]) == 0
    output = capfd.readouterr()
    assert "warn" not in output.err.lower()
    arrays = builder.load(output.out.splitlines()[0]).split("test").arrays()
    assert arrays["log_mel"].shape == (10, 1001, 64) and len(set(arrays["scene"])) == 10
    assert np.isfinite(arrays["log_mel"]).all() and arrays["log_mel"].std(axis=(1, 2)).min() > 3
