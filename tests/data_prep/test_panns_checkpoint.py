"""Checkpoints in every form that people have are ported; others are refused with a reason."""

import argparse
import builtins
import collections
import functools
import os
import pickle
import sys
import types
import zipfile
from pathlib import Path

import jax
import numpy as np
import panns_checkpoint
import panns_files
import panns_tensors
import pytest

from ergl_jax.audio import FRONT_ENDS
from ergl_jax.audio.mel import mel_filters, window
from ergl_jax.errors import InputError

torch = pytest.importorskip("torch")

import safetensors.torch  # noqa: E402
import torch_panns  # noqa: E402


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A Cnn14_16k of 2 to 64 channels, and its file."""
    pann = torch_panns.PANN("cnn14", "panns_16k", 32)
    return pann, torch_panns.save(pann, tmp_path_factory.mktemp("small") / "small.pth")


def test_panns_with_the_same_tensors_are_distinguished(tmp_path, monkeypatch):
    pann = torch_panns.PANN("cnn14", "panns_32k", 64)
    path = torch_panns.save(pann, tmp_path / "mine.pth")

    def variant(path, name=None):
        return panns_checkpoint.port(path, name=name).bundle.model.variant

    assert variant(path) == "" and variant(path, "Cnn14") == ""
    assert variant(path, "Cnn14_DecisionLevelMax") == "decision_level_max"
    with pytest.raises(InputError, match="missing: att_block.att.bias, att_block.att.weight, "):
        variant(path, "Cnn14_DecisionLevelAtt")
    name = "Cnn14_DecisionLevelMax"
    mine = panns_checkpoint.CHECKPOINTS[name]._replace(md5=panns_checkpoint.file_md5(path))
    monkeypatch.setitem(panns_checkpoint.CHECKPOINTS, name, mine)
    assert variant(path) == "decision_level_max"
    with pytest.raises(InputError, match="is not Cnn14, but Cnn14_DecisionLevelMax"):
        variant(path, "Cnn14")


def test_every_tensor_is_accounted_for(small, monkeypatch):
    pann, path = small
    done, state = panns_checkpoint.port(path), pann.state_dict()
    assert [row[:2] for row in done.tensors] == [
        (name, tuple(x.shape)) for name, x in state.items()
    ]
    became = {name: what for name, _, what in done.tensors}
    assert became["bn0.running_var"] == "batch_stats/encoder/BatchNorm_0/var"
    assert became["conv_block2.conv1.weight"] == "params/encoder/ConvBlock_1/Conv_0/kernel"
    assert became["logmel_extractor.melW"] == "checked: panns_16k"
    assert became["conv_block6.bn2.num_batches_tracked"] == "ignored"
    used = [what for what in became.values() if "/" in what]
    assert len(used) == len(set(used)) == len(jax.tree.leaves(done.bundle.variables)) == 68
    assert len(became) - len(used) == 3 + 13

    bundle, md5 = done.bundle, panns_checkpoint.file_md5(path)
    assert (bundle.scenes, len(bundle.events), bundle.events[0]) == ((), 527, "Speech")
    assert bundle.source == f"small.pth, MD5 {md5}" and bundle.licence.startswith("unknown")
    variance = bundle.variables["batch_stats"]["encoder"]["ConvBlock_0"]["BatchNormReLU_1"]["var"]
    np.testing.assert_array_equal(variance, pann.conv_block1.bn2.running_var.numpy())
    published = panns_checkpoint.Checkpoint("small.pth", md5, "cnn14", "", "panns_16k")
    monkeypatch.setitem(panns_checkpoint.CHECKPOINTS, "small", published)
    assert "CC BY 4.0" in panns_checkpoint.port(path).bundle.licence


class Malicious:
    """Calls a function where it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_file_that_would_run_code_is_refused(tmp_path, legacy):
    trap, path = tmp_path / "trap", tmp_path / "evil.pth"
    for call in ((os.system, f"touch {trap}"), (eval, f"open({str(trap)!r}, 'w')")):
        content = {"model": {panns_files.FIRST: torch.zeros(2, 1, 3, 3)}}
        content["sampler"] = Malicious(*call)
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(InputError, match="evil.pth is refused: loading it would run code"):
            panns_checkpoint.port(path)
        assert not trap.exists()


def test_files_that_are_damaged_or_something_else(small, tmp_path):
    path = tmp_path / "wrong.pth"
    for legacy in (False, True):
        data = torch_panns.save(small[0], path, legacy=legacy).read_bytes()
        cuts = [data[:length] for length in (0, 20, 3000, len(data) // 2, len(data) - 1)]
        if not legacy:  # the archive's list of members, near its end
            at = data.index(b"PK\x01\x02")
            cuts += [data[:i] + b"\xff\xff" + data[i + 2 :] for i in (at, at + 28)]
        for damaged in (*cuts, b"text", pickle.dumps({"model": {}})):
            path.write_bytes(damaged)
            with pytest.raises(
                InputError, match="wrong.pth is damaged, truncated or not a PyTorch checkpoint"
            ):
                panns_checkpoint.port(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b.txt", "c")
    with pytest.raises(
        InputError, match="wrong.pth is damaged, truncated or not a PyTorch checkpoint"
    ):
        panns_checkpoint.port(path)
    with pytest.raises(InputError, match="none.pth can't be read"):
        panns_checkpoint.port(tmp_path / "none.pth")
    first = panns_files.FIRST
    for content in ({}, [1], {"model": 3}, {"model": {"a": torch.zeros(3)}}, {"model": {first: 5}}):
        torch.save(content, path)
        with pytest.raises(InputError, match="wrong.pth is not a PANN"):
            panns_checkpoint.port(path)


REAL, MEL, FIRST = panns_tensors.REAL, panns_tensors.MEL, panns_files.FIRST


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "conv_block3.bn2.running_var",
            None,
            "does not fit cnn14: missing: conv_block3.bn2.running_var$",
        ),
        (MEL, None, "missing: logmel_extractor.melW$"),
        ("conv_block6.conv2.weight", None, "has 6 convolutional blocks, which is none of cnn14, "),
        (
            "fc_audioset.bias",
            lambda x: x[:10],
            r"of another shape: fc_audioset.bias \(10,\) instead of \(527,\); only",
        ),
        (FIRST, lambda x: x[:0], "shape: .*conv_block1.* instead of .* more"),
        (FIRST, lambda _: torch.ones(()), "shape: .*conv_block1.* instead of .* more"),
        (REAL, lambda _: torch.ones(()), "shape: spectrogram_extractor.stft.conv_real.weight "),
        (
            panns_tensors.IMAGINARY,
            lambda x: x[:-1],
            "shape: spectrogram_extractor.stft.conv_imag.weight ",
        ),
        (MEL, lambda x: x[0], "shape: logmel_extractor.melW "),
        ("pre_bn0.weight", lambda _: torch.ones(64), "unexpected: pre_bn0.weight; only"),
        (REAL, lambda x: x * 1.001, "window of 512 samples and its 64 mel filters .* no front end"),
        (MEL, lambda x: x * 1.001, "window of 512 samples and its 64 mel filters .* no front end"),
    ],
)
def test_wrong_tensors(small, tmp_path, name, change, message):
    state = dict(small[0].state_dict())
    if change:
        state[name] = change(state.get(name))
    else:
        del state[name]
    torch.save({"model": state}, tmp_path / "wrong.pth")
    with pytest.raises(InputError, match=message):
        panns_checkpoint.port(tmp_path / "wrong.pth")


def test_another_pann_than_named_or_no_pytorch(small, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="is not Cnn10, but cnn14 with the front end panns_16k"):
        panns_checkpoint.port(small[1], name="Cnn10")
    hamming = torch_panns.PANN("cnn6", "panns_32k", 64, window="hamming")
    path = torch_panns.save(hamming, tmp_path / "a.pth")
    assert panns_checkpoint.port(path).bundle.front_end.name == "paper"
    with pytest.raises(InputError, match="is not Cnn6, but cnn6 with the front end paper"):
        panns_checkpoint.port(path, name="Cnn6")
    real = builtins.__import__

    def no_torch(name, *arguments, **options):
        if name == "torch":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", no_torch)
    with pytest.raises(InputError, match=r'needs PyTorch: pip install "\.\[port\]"'):
        panns_checkpoint.port(small[1])


class Settings:
    """As of a class that this machine does not have."""

    def __init__(self, **fields):
        self.__dict__ |= fields


def lightning(state):
    """A checkpoint of Lightning, with objects of packages that are not installed here."""
    module = types.ModuleType("lightning_fabric")
    module.AttributeDict = type("AttributeDict", (dict,), {"__module__": module.__name__})
    module.Mode = type("Mode", (Settings,), {"__module__": module.__name__})
    hyper = module.AttributeDict(rate=0.1, about=argparse.Namespace(path=Path("a"), sizes=[1]))
    hyper["more"] = collections.defaultdict(list, x=[1])
    hyper["mode"] = module.Mode(best=module.AttributeDict(), kinds=(list, int))
    content = {"epoch": 3, "global_step": 7, "pytorch-lightning_version": "2.5.0"}
    content |= {"hyper_parameters": hyper, "optimizer_states": [{"state": {0: torch.ones(2)}}]}
    return content | {"state_dict": state, "callbacks": {"EarlyStopping{}": {"wait": 1}}}, module


def prefixed(prefix, state):
    return {prefix + name: x for name, x in state.items()}


FORMS = {
    "DataParallel": ("module.", lambda state: {"iteration": 1, "model": state}),
    "a bare state dict": ("", lambda state: state),
    "state_dict": ("", lambda state: {"state_dict": state, "optimizer": {"step": 1}}),
    "nested": ("", lambda state: {"runs": [{"best": (1, {"model": state})}]}),
    "compiled": ("module._orig_mod.", lambda state: {"model": state, "epoch": 3}),
}


@pytest.mark.parametrize("form", [*FORMS, "Lightning", "cuda", "safetensors"])
def test_wrapped_checkpoints_are_the_same_model(small, tmp_path, monkeypatch, form):
    state = dict(small[0].state_dict())
    path, prefix = tmp_path / "wrapped.ckpt", {"Lightning": "model."}.get(form, "")
    if form == "Lightning":
        content, module = lightning(prefixed("model.", state) | {"loss.weight": torch.ones(3)})
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module.__name__, module)
            torch.save(content, path)
    elif form == "cuda":
        monkeypatch.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
        torch.save({"model": state}, path)
    elif form == "safetensors":
        path = tmp_path / "wrapped.safetensors"
        safetensors.torch.save_file(state, path)
    else:
        prefix, wrap = FORMS[form]
        torch.save(wrap(prefixed(prefix, state)), path)
    plain, wrapped = (panns_checkpoint.port(x) for x in (small[1], path))
    jax.tree.map(np.testing.assert_array_equal, wrapped.bundle.variables, plain.bundle.variables)
    assert wrapped.bundle.front_end == plain.bundle.front_end
    expected = [(prefix + name, *rest) for name, *rest in plain.tensors]
    others = [("loss.weight", (3,), "left out")] if form == "Lightning" else []
    assert sorted(wrapped.tensors) == sorted(expected + others) and wrapped.prefix == prefix
    entries = {
        "Lightning": "state_dict",
        "state_dict": "state_dict",
        "nested": "runs.0.best.1.model",
    }
    entries |= {"a bare state dict": "", "safetensors": ""}
    assert wrapped.entry == entries.get(form, "model")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions(small, tmp_path, dtype, suffix):
    """Counters stay whole numbers."""
    state = small[0].state_dict()
    kind = getattr(torch, dtype)
    other = {name: x.to(kind) if x.is_floating_point() else x for name, x in state.items()}
    path = tmp_path / f"other.{suffix}"
    torch.save({"model": other}, path) if suffix == "pth" else safetensors.torch.save_file(
        other, path
    )
    bundle = panns_checkpoint.port(path).bundle
    assert bundle.front_end.name == "panns_16k"
    kernel = bundle.variables["params"]["fc1"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, other["fc1.weight"].float().numpy().T)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "name", [x.name for x in FRONT_ENDS.values() if not x.offset and not x.waveform]
)
def test_a_rounded_front_end_is_itself_and_no_other(name, dtype):
    front_end = FRONT_ENDS[name]
    kernels = panns_checkpoint._kernels(window(front_end))
    names = (panns_tensors.REAL, panns_tensors.IMAGINARY, panns_tensors.MEL)
    whole = dict(zip(names, (*kernels, mel_filters(front_end)), strict=True))

    def found(arrays, rounding):
        rounding = dict.fromkeys(names, rounding)
        tensors = panns_files.Tensors("", "", arrays, rounding, {})
        return panns_checkpoint._front_end(tensors, Path("a.pth"), waveform=False)

    rounded = {name: torch.tensor(x).to(dtype).float().numpy() for name, x in whole.items()}
    assert found(rounded, torch.finfo(dtype).eps / 2) == found(whole, 0.0)
    with pytest.raises(InputError, match="no front end"):  # the same numbers in float32
        found(rounded, torch.finfo(torch.float32).eps / 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["conv_block2.bn1.running_var", panns_tensors.MEL])
def test_tensors_that_are_not_finite(small, tmp_path, name, value):
    state = {key: x.clone() for key, x in small[0].state_dict().items()}
    state[name].view(-1)[-1] = value
    torch.save({"model": state}, tmp_path / "wrong.pth")
    with pytest.raises(InputError, match=f"wrong.pth: tensor {name} has NaN or infinite values"):
        panns_checkpoint.port(tmp_path / "wrong.pth")


def test_several_panns_whole_numbers_and_other_heads(small, tmp_path):
    state, path = dict(small[0].state_dict()), tmp_path / "wrong.pth"
    head = {"fc_transfer.weight": torch.ones(10, 64), "fc_transfer.bias": torch.ones(10)}
    for content, message in (
        ({"model": state, "ema": dict(state)}, r"several PANNs \(.*ema conv_block1"),
        (prefixed("student.", state) | prefixed("teacher.", state), "several PANNs .*student.conv"),
        (
            state | head,
            "unexpected: fc_transfer.weight, fc_transfer.bias; only PANNs with AudioSet's head",
        ),
        (state | {"fc_audioset.weight": torch.ones(10, 64)}, "AudioSet's head of 527 events"),
        (state | {"fc1.weight": state["fc1.weight"].to(torch.int8)}, "fc1.weight is torch.int8"),
        (state | {"fc1.weight": torch.ones(64, 64).to_sparse()}, "fc1.weight is .*sparse"),
    ):
        torch.save(content, path)
        with pytest.raises(InputError, match=message):
            panns_checkpoint.port(path)
    torch.save(prefixed("module.base.", state) | prefixed("module.", head), path)
    assert panns_checkpoint.port(path).left_out == (
        "module.fc_transfer.weight",
        "module.fc_transfer.bias",
    )


def test_code_in_what_is_ignored_does_not_run(small, tmp_path):
    """Functions of packages whose objects are ignored are not called; their file is ported."""
    trap, path = tmp_path / "trap.npy", tmp_path / "sly.ckpt"
    for call in ((np.save, trap, [1]), (functools.partial, np.save, trap, [1])):
        torch.save(
            lightning(small[0].state_dict())[0]["state_dict"] | {"a": Malicious(*call)}, path
        )
        panns_checkpoint.port(path)
        assert not trap.exists()
    torch.save({"model": small[0].state_dict(), "settings": Settings(a=1)}, path)
    with pytest.raises(
        InputError, match=r"refused: .*Settings\); if the file is yours, save only model.state"
    ):
        panns_checkpoint.port(path)
