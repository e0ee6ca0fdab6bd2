"""port_panns.py as a user runs it: downloads, output, exit status."""

import panns_checkpoint
import pytest

from ergl_jax import bundle as bundles
from ergl_jax.downloads import file_md5

pytest.importorskip("torch")

import torch  # noqa: E402
import torch_panns  # noqa: E402


@pytest.fixture(scope="module")
def main(load_script):
    return load_script("data_prep/port_panns.py").main


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    pann = torch_panns.PANN("cnn6", "panns_32k", 32)
    return torch_panns.save(pann, tmp_path_factory.mktemp("panns") / "Cnn6_mAP=0.343.pth")


@pytest.fixture
def record(checkpoint, web, monkeypatch):
    """A server with the checkpoint as Cnn6, and an empty Cnn10: its address and its requests."""
    mine = panns_checkpoint.CHECKPOINTS["Cnn6"]._replace(md5=file_md5(checkpoint))
    monkeypatch.setitem(panns_checkpoint.CHECKPOINTS, "Cnn6", mine)
    web.files["records/1/files/Cnn6_mAP%3D0.343.pth"] = checkpoint.read_bytes()
    web.files["records/1/files/Cnn10_mAP%3D0.380.pth"] = b""
    return web.url("records/1"), web.asked


def test_ports_and_reports(main, checkpoint, tmp_path, capfd):
    out = tmp_path / "deep" / "bundle"
    md5 = file_md5(checkpoint)
    assert main([str(checkpoint), f"--out={out}", "--name=Cnn6", f"--md5={md5.upper()}"]) == 0
    lines = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert lines[0] == ["tensor", "shape", "use"]
    kernel = ["conv_block4.conv1.weight", "16x8x5x5", "params/encoder/ConvBlock_3/Conv_0/kernel"]
    assert kernel in lines and ["bn0.num_batches_tracked", "scalar", "ignored"] in lines
    assert lines[-1][:3] == ["527", "events", "in"] and ["front", "end", "panns_32k"] in lines
    bundle = bundles.load(out)
    assert bundle.source == f"{checkpoint.name}, MD5 {md5}" and len(bundle.events) == 527
    assert bundle.model.encoder.architecture == "cnn6"
    assert main([str(checkpoint), f"--out={out}"]) == 0  # a bundle is replaced


def test_a_fine_tuned_checkpoint_reports_what_is_removed_and_left_out(main, tmp_path, capfd):
    state = torch_panns.PANN("cnn6", "panns_32k", 32).state_dict()
    state = {f"module.base.{name}": x for name, x in state.items()}
    path, out = tmp_path / "mine.pth", tmp_path / "bundle"
    torch.save({"model": state | {"module.fc_transfer.bias": torch.zeros(10)}}, path)
    assert main([str(path), f"--out={out}", "--name=Cnn6"]) == 0
    output = capfd.readouterr()
    lines = [" ".join(line.split()) for line in output.out.splitlines()]
    assert "module.base.fc1.bias 16 params/fc1/bias" in lines
    assert "module.fc_transfer.bias 10 left out" in lines
    assert "entry model" in lines and "prefix module.base. is removed from the names" in lines
    (line,) = output.err.splitlines()
    assert "mine.pth: ignored 1 tensor(s) that are not the PANN's, such as module.fc_tra" in line
    assert len(bundles.load(out).events) == 527


def test_downloads_once_to_paths_at_home(main, record, tmp_path, capfd, monkeypatch):
    url, asked = record
    monkeypatch.setenv("HOME", str(tmp_path))
    for _ in range(2):
        flags = ["--download=Cnn6", f"--record={url}", "--download_dir=~/panns", "--out=~/bundle"]
        assert main(flags) == 0
    assert asked == [("records/1/files/Cnn6_mAP%3D0.343.pth", None)]
    assert "CC BY 4.0" in capfd.readouterr().out
    assert "CC BY 4.0" in bundles.load(tmp_path / "bundle").licence
    (tmp_path / "panns" / "Cnn6_mAP=0.343.pth").write_bytes(b"other")
    assert main(flags) == 2
    assert "md5 is" in capfd.readouterr().err


def test_a_mistake_is_one_line_and_status_two(main, record, checkpoint, tmp_path, capfd):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").write_text("")
    new, zeros, downloads = f"--out={tmp_path}/bundle", "0" * 32, f"--download_dir={tmp_path}/panns"
    for arguments, part in (
        ([checkpoint, new, "--name=Cnn14"], "is not Cnn14, but Cnn6"),
        ([checkpoint, new, "--name=Cnn7"], "--name: invalid choice: 'Cnn7'"),
        ([checkpoint, new, f"--md5={zeros}"], f"where {zeros} is expected; get the file again"),
        ([tmp_path / "none.pth", new], "none.pth can't be read"),
        ([checkpoint, f"--out={tmp_path}/mine"], "work.txt"),
        (["--download=Cnn7", new], "--download: invalid choice: 'Cnn7'"),
        (["--download=Cnn10", new, f"--record={record[0]}", downloads], "md5 is d41d8cd98f00b2"),
        (["--download=Cnn10", new, "--name=Cnn10"], "--name and --md5 are for a checkpoint"),
    ):
        assert main([str(argument) for argument in arguments]) == 2
        output = capfd.readouterr()
        assert output.out == "" and part in output.err.splitlines()[-1]
    assert not (tmp_path / "bundle").exists() and (tmp_path / "mine" / "work.txt").exists()
