"""prepare_dataset.py as a user runs it: output, exit status, real recordings."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ergl_jax.audio import log_mel
from ergl_jax.datasets import builder

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("ERGL_SHARED_DATA", "not given"))


@pytest.fixture
def prepare(load_script, tmp_path, capfd):
    """Runs the command on ten clips to train and two to test, of two scenes, in folds 1 to 6.

    Returns its status, the dataset if it made one, and its output.
    """
    rows = ["file,scene,split,fold,group,event:Speech"]
    for i in range(12):
        noise = np.random.default_rng(i).uniform(-0.1, 0.1, 4000)
        soundfile.write(tmp_path / f"{i}.wav", noise, 16000)
        split = "train" if i < 10 else "test"
        rows.append(f"{i}.wav,{'bus' if i % 2 else 'tram'},{split},{i // 2 + 1},,0.5")
    (tmp_path / "my.csv").write_text("\n".join(rows))
    main = load_script("data_prep/prepare_dataset.py").main

    def prepare(*more):
        settings = ["--front_end=panns_16k", "--clip_seconds=0.25", f"--data_dir={tmp_path}/data"]
        status = main([f"--manifest={tmp_path}/my.csv", *settings, *more])
        output = capfd.readouterr()
        dataset = builder.load(output.out.splitlines()[0]) if output.out else None
        return status, dataset, output

    return prepare


def test_prepares_and_reports(prepare):
    status, dataset, output = prepare("--licence=CC0")
    assert status == 0 and dataset.licence == "CC0"
    assert dataset.sizes == {"train": 8, "validation": 2, "test": 2}
    assert [line.split() for line in output.out.splitlines()[1:]] == [
        ["scene", "train", "validation", "test"],
        ["bus", "4", "1", "1"],
        ["tram", "4", "1", "1"],
        ["all", "8", "2", "2"],
    ]


def test_a_channel_is_chosen_and_cancelled_channels_are_noted(prepare, tmp_path):
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 4000)
    soundfile.write(tmp_path / "0.wav", np.stack([noise, -noise], axis=1), 16000)
    _, mixed, output = prepare()
    ((name, note),) = mixed.notes
    assert name == "0.wav" and "--channel" in note and f"note: 0.wav: {note}" in output.err
    for channel, sign in (("left", 1), ("right", -1)):
        _, dataset, output = prepare(f"--channel={channel}")
        assert dataset.front_end.channel == channel and dataset.notes == []
        samples = soundfile.read(tmp_path / "0.wav", dtype="float32")[0][:, 0] * sign
        expected = log_mel(samples[None], dataset.front_end)[0]
        np.testing.assert_allclose(dataset.split("train")[0]["log_mel"], expected, atol=1e-3)
    assert prepare("--channel=mix")[1].path == mixed.path


def test_folds_and_fraction(prepare):
    _, dataset, _ = prepare("--test_folds=1,2", "--validation_folds=3")
    assert dataset.sizes == {"train": 6, "validation": 2, "test": 4}
    assert dataset.split("test").arrays()["name"] == ["0.wav", "1.wav", "2.wav", "3.wav"]
    assert prepare("--validation_fraction=0")[1].sizes == {"train": 10, "test": 2}


def test_an_edited_recording_is_prepared_again(prepare, tmp_path):
    before = prepare()[1].split("test")[0]["log_mel"]
    soundfile.write(tmp_path / "10.wav", np.full(5000, 0.1), 16000)
    assert np.abs(prepare()[1].split("test")[0]["log_mel"] - before).max() > 1


def test_status_one_when_a_clip_fails(prepare, tmp_path):
    (tmp_path / "3.wav").write_bytes(b"no audio")
    (tmp_path / "4.wav").unlink()
    for _ in range(2):  # built, then reused
        status, dataset, output = prepare()
        assert status == 1 and [name for name, _ in dataset.failures] == ["3.wav", "4.wav"]
        assert str(dataset.path / "failures.csv") in output.err
    status, _, output = prepare("--strict")
    assert status == 2 and "3.wav" in output.err.splitlines()[-1]


@pytest.mark.slow
def test_real_recordings(load_script, tmp_path, capfd):
    clips = sorted((SHARED / "urban_clips").glob("*.wav"))
    if not clips:
        pytest.skip(f"no recordings in {SHARED}/urban_clips")
    rows = [f"{path},{path.stem},test" for path in clips]
    path = tmp_path / "urban.csv"
    path.write_text("\n".join(["file,scene,split", *rows]))
    main = load_script("data_prep/prepare_dataset.py").main
    assert main([f"--manifest={path}", f"--data_dir={tmp_path}/data"]) == 0
    output = capfd.readouterr()
    assert "warn" not in output.err.lower()
    arrays = builder.load(output.out.splitlines()[0]).split("test").arrays()
    assert arrays["log_mel"].shape == (10, 1001, 64) and len(set(arrays["scene"])) == 10
    assert np.isfinite(arrays["log_mel"]).all() and arrays["log_mel"].std(axis=(1, 2)).min() > 3
