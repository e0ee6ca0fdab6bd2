"""pseudo_label.py as a user runs it: output, exit status, what it says."""

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
def arguments(tiny, tmp_path):
    """Three noisy clips, a bundle of the tiny run (any that knows events will do), an output."""
    for i in range(3):
        noise = np.random.default_rng(i).uniform(-0.1, 0.1, 30000)
        soundfile.write(tmp_path / f"{i}.wav", noise, 16000)
    (tmp_path / "my.csv").write_text("file,scene,split\n0.wav,a,train\n1.wav,b,train\n2.wav,a,test")
    bundle = tiny.workdir / "bundle"
    return [
        f"--bundle={bundle}",
        f"--manifest={tmp_path}/my.csv",
        f"--out={tmp_path}/my.events.npz",
    ]


def test_labels_are_where_training_looks(main, arguments, tiny, tmp_path, capfd):
    assert main(arguments) == 0
    output = capfd.readouterr()
    assert output.out == f"4 events in {tmp_path}/my.events.npz\n" and "3/3" in output.err
    corpus = read_manifest(tmp_path / "my.csv")
    assert corpus.events == bundles.load(tiny.workdir / "bundle").events
    assert np.ptp([clip.events for clip in corpus.clips], axis=0).min() > 0


def test_paths_may_begin_at_home(main, arguments, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "teacher").symlink_to(tiny.workdir / "bundle")
    (tmp_path / "1.wav").write_bytes(b"no audio")
    assert main(["--bundle=~/teacher", "--manifest=~/my.csv", "--out=~/new/my.npz"]) == 1
    listed = {path.name for path in (tmp_path / "new").iterdir()}
    assert {"my.npz", "my.failures.csv"} <= listed


def test_defaults_are_the_bundles(main, arguments, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(pseudo_labels, "label", lambda *_, **options: seen.update(options) or [])
    assert main(arguments) == 0
    assert seen == dict(clip_seconds=2.0, pad="zero", long="crop", batch_size=8, strict=False)
    more = ["--clip_seconds=1", "--pad=repeat", "--long=windows", "--batch_size=2", "--strict"]
    assert main(arguments + more) == 0
    assert seen == dict(clip_seconds=1.0, pad="repeat", long="windows", batch_size=2, strict=True)


def test_status_one_when_a_recording_fails(main, arguments, tmp_path, capfd):
    (tmp_path / "1.wav").write_bytes(b"no audio")
    assert main(arguments) == 1
    output = capfd.readouterr()
    assert f"1 recordings are left out: {tmp_path}/my.events.failures.csv" in output.err
    assert "1.wav" in (tmp_path / "my.events.failures.csv").read_text()
    assert len(np.load(tmp_path / "my.events.npz")["clip"]) == 2


def test_status_two_and_one_line_on_wrong_input(main, arguments, tmp_path, capfd):
    (tmp_path / "1.wav").write_bytes(b"no audio")
    wrong = [
        (["--strict"], "1.wav"),
        ([f"--bundle={tmp_path}"], "is not a bundle"),
        ([f"--manifest={tmp_path}/none.csv"], "none.csv"),
        (["--batch_size=0"], "batch_size=0"),
        ([f"--out={tmp_path}"], ".npz"),
    ]
    for more, part in wrong:
        assert main(arguments + more) == 2
        output = capfd.readouterr()
        assert output.out == "" and part in output.err.splitlines()[-1]
        assert "Traceback" not in output.err


def test_an_interrupt_says_how_to_go_on(main, arguments, monkeypatch, capfd):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pseudo_labels, "label", interrupt)
    assert main(arguments) == 130
    assert "the same command goes on with what is done" in capfd.readouterr().err
