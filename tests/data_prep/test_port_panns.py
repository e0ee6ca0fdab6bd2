"""port_panns.py as a user runs it: downloads, output, exit status."""

import dataclasses
from pathlib import Path

import panns_checkpoint
import pytest

from ergl_jax import bundle as bundles
from ergl_jax.downloads import file_md5

pytest.importorskip("torch")

import torch_panns  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def main(load_script):
    return load_script("data_prep/port_panns.py").main


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    pann = torch_panns.PANN("cnn6", "panns_32k", 32)
    return torch_panns.save(pann, tmp_path_factory.mktemp("panns") / "Cnn6_mAP=0.343.pth")


@pytest.fixture
def record(checkpoint, web, monkeypatch):
    """A server that has the checkpoint as Cnn6, and Cnn10 empty: its address, what it was asked."""
    mine = dataclasses.replace(panns_checkpoint.CHECKPOINTS["Cnn6"], md5=file_md5(checkpoint))
    monkeypatch.setitem(panns_checkpoint.CHECKPOINTS, "Cnn6", mine)
    web.files["records/1/files/Cnn6_mAP%3D0.343.pth"] = checkpoint.read_bytes()
    web.files["records/1/files/Cnn10_mAP%3D0.380.pth"] = b""
    return web.url("records/1"), web.asked


def test_ports_and_reports(main, checkpoint, tmp_path, capfd):
    out = tmp_path / "deep" / "bundle"
    assert main([str(checkpoint), f"--out={out}", "--name=Cnn6"]) == 0
    lines = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert lines[0] == ["tensor", "shape", "what", "became", "of", "it"]
    kernel = "conv_block4.conv1.weight", "16x8x5x5", "params/encoder/ConvBlock_3/Conv_0/kernel"
    assert list(kernel) in lines
    assert ["bn0.num_batches_tracked", "scalar", "ignored"] in lines
    assert lines[-1][:3] == ["527", "events", "in"]
    assert ["front", "end", "panns_32k"] in lines
    bundle = bundles.load(out)
    assert bundle.source == f"{checkpoint.name}, MD5 {file_md5(checkpoint)}"
    assert bundle.model.encoder.architecture == "cnn6" and len(bundle.events) == 527
    assert main([str(checkpoint), f"--out={out}"]) == 0  # a bundle is replaced


def test_downloads_once(main, record, tmp_path, capfd):
    url, asked = record
    arguments = ["--download=Cnn6", f"--record={url}", f"--download_dir={tmp_path}/panns"]
    for _ in range(2):
        assert main([*arguments, f"--out={tmp_path}/bundle"]) == 0
    assert asked == [("records/1/files/Cnn6_mAP%3D0.343.pth", None)]
    assert "CC BY 4.0" in capfd.readouterr().out
    assert "CC BY 4.0" in bundles.load(tmp_path / "bundle").licence
    (tmp_path / "panns" / "Cnn6_mAP=0.343.pth").write_bytes(b"other")
    assert main([*arguments, f"--out={tmp_path}/bundle"]) == 2
    assert "md5 is" in capfd.readouterr().err


def test_paths_may_begin_at_home(main, record, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    download = ["--download=Cnn6", f"--record={record[0]}", "--download_dir=~/a"]
    assert main([*download, "--out=~/b"]) == 0
    assert main(["~/a/Cnn6_mAP=0.343.pth", "--out=~/c"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c", "cwd"}
    assert not list((tmp_path / "cwd").iterdir())


def test_a_mistake_is_one_line_and_status_two(main, record, checkpoint, tmp_path, capfd):
    url, _ = record
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").write_text("")
    (tmp_path / "cut.pth").write_bytes(checkpoint.read_bytes()[:-100])
    new = f"--out={tmp_path}/bundle"
    wrong = [
        ([str(checkpoint), new, "--name=Cnn14"], "is not Cnn14: its tensors are those of cnn6"),
        ([str(checkpoint), new, "--name=Cnn7"], "choose one of Cnn14_16k, Cnn14, Cnn10, Cnn6"),
        (
            [str(checkpoint), new, f"--md5={'0' * 32}"],
            f"where {'0' * 32} is expected; get the file again, or correct --md5",
        ),
        ([str(tmp_path / "none.pth"), new, f"--md5={'0' * 32}"], "none.pth can't be read"),
        ([str(tmp_path / "cut.pth"), new], "cut.pth is truncated or damaged"),
        ([str(ROOT / "README.md"), new], "README.md is not a PANN"),
        (
            [str(checkpoint), f"--out={tmp_path}/mine"],
            "mine holds work.txt, which is no part of a bundle",
        ),
        ([str(checkpoint), f"--out={checkpoint}"], "is a file"),
        (["--download=Cnn7", new], "no PANN 'Cnn7'"),
        (
            ["--download=Cnn10", new, f"--record={url}", f"--download_dir={tmp_path}/panns"],
            "md5 is d41d8cd98f00b204e9800998ecf8427e where bfb1f1f9968938fa8ef4012b8471f5f6 is",
        ),
    ]
    for arguments, part in wrong:
        assert main(arguments) == 2
        output = capfd.readouterr()
        assert output.out == "" and part in output.err.splitlines()[-1]
        assert "Traceback" not in output.err
    assert not (tmp_path / "bundle").exists() and (tmp_path / "mine" / "work.txt").exists()


def test_an_md5_that_is_right_passes(main, checkpoint, tmp_path):
    md5 = file_md5(checkpoint).upper()
    assert main([str(checkpoint), f"--out={tmp_path}/bundle", f"--md5={md5}"]) == 0
