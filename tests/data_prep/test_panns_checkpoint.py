"""Ported PANNs equal PyTorch's, and what is no PANN is refused by name."""

import builtins
import os
import pickle
import zipfile

import jax
import numpy as np
import panns_checkpoint
import pytest

from ergl_jax import bundle as bundles
from ergl_jax.audio import log_mel
from ergl_jax.errors import InputError

torch = pytest.importorskip("torch")

import torch_panns  # noqa: E402

SMALL = 32  # divides the channels


def waveforms(seconds, rate):
    """A chirp in noise, and clicks; (2, L)."""
    time = np.arange(int(seconds * rate)) / rate
    noise = 0.1 * np.random.default_rng(0).standard_normal(len(time))
    chirp = 0.3 * np.sin(2 * np.pi * 0.2 * rate * time**2 / time[-1]) + noise
    clicks = 0.1 * noise
    clicks[:: rate // 7] += 0.9
    return np.stack([chirp, clicks]).astype(np.float32)


def ours(bundle, waveform):
    """Probabilities and embedding by a bundle."""
    model = bundle.build()

    @jax.jit
    def run(variables, waveform):
        return model.apply(variables, log_mel(waveform, bundle.front_end), train=False)

    with jax.default_matmul_precision("float32"):
        output = run(bundle.variables, waveform)
    assert output.scene_logits is None and output.graph is None
    return jax.nn.sigmoid(output.event_logits), output.embedding


def compare(pann, bundle, seconds):
    waveform = waveforms(seconds, bundle.front_end.sample_rate)
    probabilities, embedding = (x.numpy() for x in pann(torch.from_numpy(waveform)))
    assert probabilities.std() > 0.05 and np.abs(probabilities[0] - probabilities[1]).max() > 0.01
    found = ours(bundle, waveform)
    for mine, theirs in zip(found, (probabilities, embedding), strict=True):
        print("differ by", np.abs(mine - theirs).max(), "of", np.abs(theirs).max())
    np.testing.assert_allclose(found[0], probabilities, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found[1], embedding, rtol=1e-4, atol=1e-4 * embedding.max())


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A Cnn14_16k of 2 to 64 channels, and its file."""
    pann = torch_panns.PANN("cnn14", "panns_16k", SMALL)
    return pann, torch_panns.save(pann, tmp_path_factory.mktemp("small") / "small.pth")


def spoilt(path, change):
    """A copy of a checkpoint after `change(content)`, beside it."""
    content = panns_checkpoint._load(path)
    del content["sampler"]
    change(content)
    torch.save(content, path.with_name("spoilt.pth"))
    return path.with_name("spoilt.pth")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("architecture", "front_end", "name"),
    [
        ("cnn14", "panns_16k", "Cnn14_16k"),
        ("cnn14", "panns_32k", "Cnn14"),
        ("cnn10", "panns_32k", "Cnn10"),
        ("cnn6", "panns_32k", "Cnn6"),
    ],
)
def test_equals_pytorch(tmp_path, architecture, front_end, name, legacy):
    pann = torch_panns.PANN(architecture, front_end, SMALL, seed=int(legacy))
    path = torch_panns.save(pann, tmp_path / "small.pth", legacy=legacy)
    bundle = panns_checkpoint.port(path, name=name).bundle
    assert bundle.front_end.name == front_end
    compare(pann, bundle, seconds=1.3)


def test_a_whole_cnn14_16k_equals_pytorch(tmp_path):
    pann = torch_panns.PANN()
    path = torch_panns.save(pann, tmp_path / "whole.pth")
    panns_checkpoint.port(path, name="Cnn14_16k").bundle.save(tmp_path / "bundle")
    path.unlink()
    bundle = bundles.load(tmp_path / "bundle")
    assert sum(x.size for x in jax.tree.leaves(bundle.variables["params"])) == 80_753_615
    compare(pann, bundle, seconds=2)


def test_the_bundle_says_what_it_is(small, monkeypatch):
    _, path = small
    bundle = panns_checkpoint.port(path).bundle
    assert bundle.scenes == () and len(bundle.events) == 527 and bundle.events[0] == "Speech"
    assert (bundle.clip_seconds, bundle.dataset) == (10.0, "AudioSet")
    md5 = panns_checkpoint.file_md5(path)
    assert bundle.source == f"small.pth, MD5 {md5}" and bundle.licence.startswith("unknown")
    published = panns_checkpoint.Checkpoint("small.pth", md5, "cnn14", "panns_16k")
    monkeypatch.setitem(panns_checkpoint.CHECKPOINTS, "small", published)
    assert "CC BY 4.0" in panns_checkpoint.port(path).bundle.licence


def test_every_tensor_is_accounted_for(small):
    pann, path = small
    done = panns_checkpoint.port(path)
    state = pann.state_dict()
    assert [row[0] for row in done.tensors] == list(state)
    assert all(row[1] == tuple(state[row[0]].shape) for row in done.tensors)
    became = {name: what for name, _, what in done.tensors}
    assert became["bn0.running_var"] == "batch_stats/encoder/BatchNorm_0/var"
    assert became["conv_block2.conv1.weight"] == "params/encoder/ConvBlock_1/Conv_0/kernel"
    assert became["logmel_extractor.melW"] == "checked: panns_16k"
    assert became["conv_block6.bn2.num_batches_tracked"] == "ignored"
    used = [what for what in became.values() if "/" in what]
    assert len(used) == len(set(used)) == len(jax.tree.leaves(done.bundle.variables)) == 68
    assert len(became) - len(used) == 3 + 13


def test_names_of_numpy_1_are_read(small):
    """Its pickles say numpy.core, and so does every checkpoint that PANNs published."""
    pann, path = small
    data = torch_panns.save(pann, path.with_name("legacy.pth"), legacy=True).read_bytes()
    new, old = b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"
    data = data.replace(new, old) if new in data else data.replace(old, new)
    path.with_name("legacy.pth").write_bytes(data)
    panns_checkpoint.port(path.with_name("legacy.pth"))


def test_the_running_variance_is_taken_as_it_is(small):
    pann, path = small
    found = panns_checkpoint.port(path).bundle.variables["batch_stats"]["encoder"]["ConvBlock_0"]
    np.testing.assert_array_equal(
        found["BatchNormReLU_1"]["var"], pann.conv_block1.bn2.running_var.numpy()
    )


def test_arrays_are_passed_over_and_not_made(small):
    """NumPy's own unpickling is not proof against a file that was made to break it."""
    sampler = panns_checkpoint._load(small[1])["sampler"]
    assert sampler["pointers_of_classes"] == [0, 3] and sampler["queue"][0] == 1
    inert = [*sampler["indexes_per_class"], sampler["queue"][1], sampler["state"]["mask"]]
    assert {type(x) for x in inert} == {panns_checkpoint._Ignored} and not any(
        vars(x) for x in inert
    )


class Malicious:
    """Makes a file where it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("function", ["os.system", "builtins.eval", "builtins.open"])
def test_a_file_that_would_run_code_is_refused(tmp_path, function, legacy):
    trap = tmp_path / "trap"
    call = {
        "os.system": (os.system, f"touch {trap}"),
        "builtins.eval": (eval, f"open({str(trap)!r}, 'w')"),
        "builtins.open": (open, str(trap), "w"),
    }[function]
    content = {
        "model": {panns_checkpoint.FIRST: torch.zeros(2, 1, 3, 3)},
        "sampler": Malicious(*call),
    }
    torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match="evil.pth is refused: it asks for .*would run code"):
        panns_checkpoint.port(tmp_path / "evil.pth")
    assert not trap.exists()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_truncated_file_is_called_so_wherever_it_ends(small, legacy):
    pann, path = small
    cut = torch_panns.save(pann, path.with_name("cut.pth"), legacy=legacy)
    data = cut.read_bytes()
    for length in (20, 100, 3000, len(data) // 2, len(data) - 1000, len(data) - 1):
        cut.write_bytes(data[:length])
        with pytest.raises(InputError, match="cut.pth is truncated or damaged"):
            panns_checkpoint.port(cut)


def test_a_damaged_directory_of_the_zip_is_damage(small):
    """The archive's list of members, near its end; the record that says where it is, is whole."""
    cut = small[1].with_name("cut.pth")
    data = bytearray(small[1].read_bytes())
    at = data.index(b"PK\x01\x02")
    for offset, value in ((at, b"????"), (at + 6, b"\xff\xff"), (at + 28, b"\xff\xff")):
        damaged = data.copy()
        damaged[offset : offset + len(value)] = value
        cut.write_bytes(damaged)
        with pytest.raises(InputError, match="cut.pth is truncated or damaged"):
            panns_checkpoint.port(cut)


def test_what_is_no_checkpoint_is_no_pann(small, tmp_path):
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    (tmp_path / "text.pth").write_text("not one")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps({"model": {}}))
    with zipfile.ZipFile(tmp_path / "any.zip", "w") as archive:
        archive.writestr("a/b.txt", "c")
    for name in ("arrays.npz", "text.pth", "empty.pth", "pickle.pth", "any.zip"):
        with pytest.raises(InputError, match=f"{name} is not a PANN"):
            panns_checkpoint.port(tmp_path / name)
    for name in ("none.pth", ""):
        with pytest.raises(InputError, match="can't be read"):
            panns_checkpoint.port(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        {},
        [1, 2],
        {"model": 3},
        {"model": {}},
        {"model": {"conv1.weight": torch.zeros(3)}},
        {"model": {"weight": 3, panns_checkpoint.FIRST: 5}},
    ],
    ids=str,
)
def test_what_holds_other_things_is_no_pann(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(InputError, match="other.pth is not a PANN"):
        panns_checkpoint.port(tmp_path / "other.pth")


def test_another_pann_than_named(small, tmp_path):
    _, path = small
    with pytest.raises(InputError, match="is not Cnn10: its tensors are those of cnn14"):
        panns_checkpoint.port(path, name="Cnn10")
    with pytest.raises(InputError, match="is not Cnn14: it was made with front end panns_16k"):
        panns_checkpoint.port(path, name="Cnn14")
    with pytest.raises(InputError, match="no PANN 'Cnn12': choose one of Cnn14_16k, Cnn14"):
        panns_checkpoint.port(path, name="Cnn12")


def drop(name):
    def apply(content):
        del content["model"][name]

    return apply


def replace(name, change):
    def apply(content):
        content["model"][name] = change(content["model"].get(name))

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("conv_block3.bn2.running_var"), "conv_block3.bn2.running_var of cnn14 is missing"),
        (drop("logmel_extractor.melW"), "logmel_extractor.melW of cnn14 is missing"),
        (drop("conv_block6.conv2.weight"), "is not one of Cnn14_16k, .*6 convolutional blocks"),
        (replace("fc_audioset.bias", lambda x: x[:10]), r"is \(10,\), cnn14 has \(527,\)"),
        (replace("fc1.weight", lambda x: x[:, :-1]), r"fc1.weight is \(64, 63\)"),
        (
            replace(panns_checkpoint.FIRST, lambda x: x[:0]),
            "conv_block1.conv1.weight is .*misshapen",
        ),
        (
            replace(panns_checkpoint.FIRST, lambda _: torch.ones(())),
            "conv_block1.conv1.weight is .*misshapen",
        ),
        (replace(panns_checkpoint.REAL, lambda x: x[:, 0]), "misshapen tensors, of an STFT"),
        (replace(panns_checkpoint.REAL, lambda _: torch.ones(())), "misshapen tensors, of an STFT"),
        (replace(panns_checkpoint.IMAGINARY, lambda x: x[:-1]), "misshapen tensors, of an STFT"),
        (replace(panns_checkpoint.MEL, lambda x: x[0]), "misshapen tensors, of an STFT"),
        (replace("pre_bn0.weight", lambda _: torch.ones(64)), "pre_bn0.weight is unexpected"),
    ],
)
def test_missing_misshapen_and_unexpected_tensors(small, change, message):
    with pytest.raises(InputError, match=message):
        panns_checkpoint.port(spoilt(small[1], change))


class TestAnotherFrontEnd:
    """A wrong one is an error, and not a model that hears wrongly."""

    def test_window(self, tmp_path):
        pann = torch_panns.PANN("cnn6", "panns_32k", 64, window="hamming")
        path = torch_panns.save(pann, tmp_path / "a.pth")
        assert panns_checkpoint.port(path).bundle.front_end.name == "paper"
        with pytest.raises(InputError, match="made with front end paper, not panns_32k"):
            panns_checkpoint.port(path, name="Cnn6")
        pann = torch_panns.PANN("cnn6", "panns_16k", 64, window="hamming")
        with pytest.raises(
            InputError,
            match="a hamming window of 512 samples and 64 mel filters of 16000 Hz, 50 to 8000 Hz: "
            "no front end here",
        ):
            panns_checkpoint.port(torch_panns.save(pann, tmp_path / "b.pth"))

    @pytest.mark.parametrize(("rate", "fmax"), [(8000, 4000), (22050, 11025), (32000, 14000)])
    def test_sample_rate(self, small, monkeypatch, rate, fmax):
        monkeypatch.setitem(torch_panns.FRONT_ENDS, "other", (rate, "hann", 512, 160, fmax))
        pann = torch_panns.PANN("cnn6", "other", 64)
        path = torch_panns.save(pann, small[1].with_name("other.pth"))
        message = f"hann window of 512 samples and 64 mel filters of {rate} Hz, 50 to {fmax} Hz"
        with pytest.raises(InputError, match=message):
            panns_checkpoint.port(path)

    @pytest.mark.parametrize(
        "name", [panns_checkpoint.REAL, panns_checkpoint.IMAGINARY, panns_checkpoint.MEL]
    )
    def test_filters_that_are_slightly_off(self, small, name):
        def off(x):
            x = x.clone()
            x.view(-1)[x.abs().argmax()] *= 1.001
            return x

        with pytest.raises(InputError, match="no known kind"):
            panns_checkpoint.port(spoilt(small[1], replace(name, off)))


def test_without_pytorch_the_extra_is_named(small, monkeypatch):
    real = builtins.__import__

    def none_of_it(name, *arguments, **options):
        if name == "torch":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", none_of_it)
    with pytest.raises(InputError, match=r'needs PyTorch: pip install "\.\[port\]"'):
        panns_checkpoint.port(small[1])
