"""pseudo_label.py as a user runs it: flags, output, exit status."""

import numpy as np
import pytest
import soundfile

from ergl_jax import bundle as bundles
from ergl_jax.datasets.manifest import read_manifest
from ergl_jax.training import pseudo_labels


@pytest.fixture(scope="module")
def main(load_script):
    return load_script("data_prep/pseudo_label.py").main


@pytest.fixture
def arguments(tiny, tmp_path, monkeypatch):
    """Three noisy clips, a bundle of the tiny run (any with events will do), an output at home."""
    for i in range(3):
        noise = np.random.default_rng(i).uniform(-0.1, 0.1, 30000)
        soundfile.write(tmp_path / f"{i}.wav", noise, 16000)
    (tmp_path / "my.csv").write_text("file,scene,split\n0.wav,a,train\n1.wav,b,train\n2.wav,a,test")
    monkeypatch.setenv("HOME", str(tmp_path))
    return [f"--bundle={tiny.workdir}/bundle", "--manifest=~/my.csv", "--out=~/my.events.npz"]


def test_labels_are_where_training_looks(main, arguments, tiny, tmp_path, capfd):
    assert main(arguments) == 0
    output = capfd.readouterr()
    assert output.out == f"4 events in {tmp_path}/my.events.npz\n" and "3/3" in output.err
    corpus = read_manifest(tmp_path / "my.csv")
    assert corpus.events == bundles.load(tiny.workdir / "bundle").events
    assert np.ptp([clip.events for clip in corpus.clips], axis=0).min() > 0


def test_notes_are_listed_and_a_channel_is_chosen(main, arguments, tmp_path, capfd):
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 30000)
    soundfile.write(tmp_path / "1.wav", np.stack([noise, -noise], axis=1), 16000)
    listed = tmp_path / "my.events.notes.csv"
    assert main(arguments) == 0
    err = capfd.readouterr().err
    assert "note: 1.wav: " in err and f"1 notes on recordings: {listed}" in err
    assert "--channel" in listed.read_text()
    assert main([*arguments, "--channel=left"]) == 0
    assert not listed.exists() and "note: " not in capfd.readouterr().err


def test_flags_and_their_defaults(main, arguments, monkeypatch, capfd):
    seen = {}
    monkeypatch.setattr(pseudo_labels, "label", lambda *_, **options: seen.update(options) or [])
    assert main(arguments) == 0
    assert seen == dict(clip_seconds=2.0, pad="zero", long="crop", batch_size=8, strict=False)
    more = ["--clip_seconds=1", "--pad=repeat", "--long=windows", "--batch_size=2", "--strict"]
    assert main(arguments + more) == 0
    assert seen == dict(clip_seconds=1.0, pad="repeat", long="windows", batch_size=2, strict=True)


def test_a_recording_that_fails(main, arguments, tmp_path, capfd):
    (tmp_path / "1.wav").write_bytes(b"no audio")
    assert main(arguments) == 1
    output = capfd.readouterr()
    assert f"1 recordings are left out: {tmp_path}/my.events.failures.csv" in output.err
    assert "1.wav" in (tmp_path / "my.events.failures.csv").read_text()
    for more, part in (("--strict", "1.wav"), ("--batch_size=0", "--batch_size: 0")):
        assert main([*arguments, more]) == 2
        output = capfd.readouterr()
        assert output.out == "" and part in output.err.splitlines()[-1]
