"""Ported PANNs compute what PyTorch's layers do, with random weights."""

import jax
import numpy as np
import panns_checkpoint
import pytest

from ergl_jax import bundle as bundles
from ergl_jax.audio import log_mel
from ergl_jax.models.decision_level import upsample

torch = pytest.importorskip("torch")

import torch_panns  # noqa: E402


def compare(pann, bundle, seconds):
    """What a PANN computes of a chirp in noise and of clicks, by PyTorch and by a bundle."""
    rate = bundle.front_end.sample_rate
    time = np.arange(int(seconds * rate)) / rate
    noise = 0.1 * np.random.default_rng(0).standard_normal(len(time))
    clicks = 0.1 * noise
    clicks[:: rate // 7] += 0.9
    chirp = 0.3 * np.sin(2 * np.pi * 0.2 * rate * time**2 / time[-1]) + noise
    waveforms = np.stack([chirp, clicks]).astype(np.float32)  # (2, L)
    model = bundle.build()

    @jax.jit
    def run(variables, waveforms):
        x = log_mel(waveforms, bundle.front_end)
        output = model.apply(variables, x, train=False)
        frames = output.event_logits_by_frame
        if frames is not None:
            frames = upsample(jax.nn.sigmoid(frames), x.shape[1], model.frames_per_step)
        return jax.nn.sigmoid(output.event_logits), output.embedding, frames

    with jax.default_matmul_precision("float32"):
        found = run(bundle.variables, waveforms)
    probabilities, embedding, frames = pann(torch.from_numpy(waveforms))
    assert probabilities.std() > 0.05
    assert (probabilities[0] - probabilities[1]).abs().max() > 0.01
    np.testing.assert_allclose(found[0], probabilities, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found[1], embedding, rtol=1e-4, atol=1e-4 * embedding.max().item())
    if frames is None:
        assert found[2] is None
        return
    assert frames.shape == (2, bundle.front_end.num_frames(seconds), 527)
    assert (frames[:, 0] - frames[:, -1]).abs().max() > 0.01
    np.testing.assert_allclose(found[2], frames, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "front_end", "name", "legacy"),
    [
        ("cnn14", "panns_16k", "Cnn14_16k", False),
        ("cnn10", "panns_32k", "Cnn10", True),
        ("cnn6", "panns_32k", "Cnn6", True),
        ("cnn14", "panns_8k", "Cnn14_8k", False),
        ("resnet22", "panns_32k", "ResNet22", False),
        ("mobilenetv1", "panns_32k", "MobileNetV1", False),
        ("wavegram_logmel_cnn14", "panns_wavegram", "Wavegram_Logmel_Cnn14", False),
    ],
)
def test_equals_pytorch(tmp_path, architecture, front_end, name, legacy):
    divisor = {"mobilenetv1": 8, "wavegram_logmel_cnn14": 4}.get(architecture, 32)
    pann = torch_panns.PANN(architecture, front_end, divisor, seed=int(legacy))
    path = torch_panns.save(pann, tmp_path / "small.pth", legacy=legacy)
    # NumPy 1's names, as in all that PANNs published; a zip would need a new checksum.
    names = b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"
    path.write_bytes(path.read_bytes().replace(*names) if legacy else path.read_bytes())
    bundle = panns_checkpoint.port(path, name=name).bundle
    assert bundle.front_end.name == front_end
    compare(pann, bundle, seconds=1.3)


@pytest.mark.parametrize("variant", ["decision_level_max", "decision_level_att"])
@pytest.mark.parametrize("divisor", [32, pytest.param(1, marks=pytest.mark.slow)])
def test_decision_level_panns_equal_pytorch(tmp_path, variant, divisor):
    name = {"max": "Cnn14_DecisionLevelMax", "att": "Cnn14_DecisionLevelAtt"}[variant[-3:]]
    pann = torch_panns.PANN("cnn14", "panns_32k", divisor, variant=variant)
    path = torch_panns.save(pann, tmp_path / f"{name}_mAP=0.4.pth")
    done = panns_checkpoint.port(path)  # by its file name
    assert done.bundle.model.variant == variant
    done.bundle.save(tmp_path / "bundle")
    compare(pann, bundles.load(tmp_path / "bundle"), seconds=1.3)
    ignored = {tensor for tensor, _, what in done.tensors if what == "ignored"}
    assert ("att_block.bn_att.running_var" in ignored) == (variant == "decision_level_att")


# PANNs' published numbers of parameters, less those of the STFT and the mel filters.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Cnn14_16k", 80_753_615),
        ("ResNet22", 63_675_087),
        ("ResNet38", 73_783_247),
        ("MobileNetV1", 4_796_303),
        ("Wavegram_Logmel_Cnn14", 81_065_487),
    ],
)
def test_a_whole_pann_equals_pytorch(tmp_path, name, parameters):
    published = panns_checkpoint.CHECKPOINTS[name]
    pann = torch_panns.PANN(published.architecture, published.front_end)
    path = torch_panns.save(pann, tmp_path / "whole.pth")
    panns_checkpoint.port(path, name=name).bundle.save(tmp_path / "bundle")
    bundle = bundles.load(tmp_path / "bundle")
    assert sum(x.size for x in jax.tree.leaves(bundle.variables["params"])) == parameters
    compare(pann, bundle, seconds=2)
