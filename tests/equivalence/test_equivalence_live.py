"""Full-size models and real recordings against PyTorch itself, where it is installed."""

import functools
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from programs import python

pytest.importorskip("torch")
pytest.importorskip("torchlibrosa")

import torch  # noqa: E402

from equivalence import cases, compare, reference, stored, torch_side  # noqa: E402
from ergl_jax.audio import FRONT_ENDS, log_mel, read_audio  # noqa: E402
from ergl_jax.models import ERGL, PANN, Encoder  # noqa: E402
from ergl_jax.models.panns import ARCHITECTURES  # noqa: E402

SHARED = os.environ.get("ERGL_SHARED_DATA")
RECORDINGS = sorted((Path(SHARED) / "urban_clips").glob("*.wav")) if SHARED else []
both = pytest.mark.parametrize(
    "front_end", [FRONT_ENDS[name] for name in stored.LOG_MELS], ids=stored.LOG_MELS
)


def test_the_stored_reference_is_what_the_script_makes_now(tmp_path):
    made = tmp_path / "reference.npz"
    done = python("data_prep/make_reference_tensors.py", "--out", made)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == [made]
    with np.load(made) as new, np.load(stored.PATH) as old:
        now, then = ({name: file[name] for name in file.files} for file in (new, old))
    # Float64 rounded once, and torchlibrosa's float32: other processors may add in another order.
    assert not compare.beyond(now, then, 1e-6)


# Log-mel


def float64_log_mel(waveform, front_end):
    """The oracle of both: no rounding but the signal's and the mel filters'; (F, 64) dB."""
    import librosa

    n_fft, hop = front_end.n_fft, front_end.hop
    padded = np.pad(np.float64(waveform), n_fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
    spectrum = np.fft.rfft(frames * librosa.filters.get_window(front_end.window, n_fft))
    mel = librosa.filters.mel(
        sr=front_end.sample_rate, n_fft=n_fft, n_mels=64, fmin=50, fmax=front_end.fmax
    )
    return 10 * np.log10(np.maximum(np.abs(spectrum) ** 2 @ np.float64(mel.T), 1e-10))


@both
@pytest.mark.parametrize("seconds", [0.1, 2.0])
def test_log_mel_of_synthetic_signals(front_end, seconds):
    for name, signal in cases.waveforms(front_end.sample_rate, seconds).items():
        got = {"log-mel/log-mel": np.asarray(log_mel(signal[None], front_end))[0]}
        want = {"log-mel/log-mel": torch_side.torchlibrosa_log_mel(front_end.name, signal)}
        layer = f"log-mel {front_end.name}, dB: {name}, {seconds} s"
        compare.assert_equal(layer, got, want, "torchlibrosa")
        assert compare.TABLE[-1].absolute <= 1e-4


@both
@pytest.mark.skipif(not RECORDINGS, reason="no urban_clips under ERGL_SHARED_DATA")
def test_log_mel_of_real_recordings(front_end):
    """Within 1e-4 dB but for a few values in a million: bands 50 to 80 dB under the loudest.

    There float32's rounding shows on both sides: torchlibrosa is up to 1.1e-4 dB off float64.
    """
    ours, theirs, truth = [], [], []
    for recording in RECORDINGS:
        waveform = read_audio(recording, front_end.sample_rate)
        ours.append(np.asarray(log_mel(waveform[None], front_end))[0])
        theirs.append(torch_side.torchlibrosa_log_mel(front_end.name, waveform))
        truth.append(float64_log_mel(waveform, front_end))
    ours, theirs, truth = map(np.stack, (ours, theirs, truth))
    layer = f"log-mel {front_end.name}, dB: ten recordings"
    for other, tensor, want in [
        ("torchlibrosa", ours, theirs),
        ("float64", ours, truth),
        ("float64", theirs, truth),
    ]:
        name = layer if tensor is ours else f"{layer}, torchlibrosa's own"
        compare.assert_equal(name, {"log-mel/log-mel": tensor}, {"log-mel/log-mel": want}, other)
    error = np.abs(ours - theirs)
    assert np.mean(error > 1e-4) < 2e-5  # measured: 6e-6
    # On a CPU ours is float64 rounded once. By convolution, as elsewhere, it is 1.4e-4 off at most;
    # where ours and theirs err to either side, the two add up: 2.0e-4 in panns_32k.
    if jax.default_backend() == "cpu":
        assert error.max() < 1.5e-4
        assert np.abs(ours - truth).max() < 3e-5
    else:
        assert error.max() < (2.5e-4 if front_end.name == "panns_32k" else 2e-4)
        assert np.abs(ours - truth).max() < 2e-4


# Full size


def pair_of_waveforms(front_end):
    """(2, L), 1.2 s: noise that fades in, and tones that fade out."""
    first, _, last = cases.waveforms(front_end.sample_rate, 1.2).values()
    rise = np.linspace(0.05, 1, len(first), dtype=np.float32)
    return np.stack([first * rise, last * rise[::-1]])


@pytest.mark.parametrize(
    ("name", "architecture", "front_end"),
    [
        ("Cnn14_16k", "cnn14", "panns_16k"),
        ("Cnn14", "cnn14", "panns_32k"),
        ("Cnn10", "cnn10", "panns_32k"),
        ("Cnn6", "cnn6", "panns_32k"),
    ],
)
def test_panns_at_full_size_from_waveform_to_probabilities(name, architecture, front_end):
    waveform = pair_of_waveforms(FRONT_ENDS[front_end])
    variables = full_size(architecture)
    got = tagger(architecture, variables, log_mel(waveform, FRONT_ENDS[front_end]))
    logmels = [torch_side.torchlibrosa_log_mel(front_end, signal) for signal in waveform]
    with torch.no_grad():
        want = reference.tagger(
            torch_side.scope(variables, torch.float32),
            torch.from_numpy(np.stack(logmels)),
            train=False,
            architecture=architecture,
        )
    compare.assert_equal(
        f"{name}, full size",
        {f"{tensor}/{tensor}": x for tensor, x in got.items()},
        {f"{tensor}/{tensor}": x.numpy() for tensor, x in want.items()},
        "torch",
        tolerance=1e-4 if architecture == "cnn14" else None,
    )
    assert np.ptp(got["probabilities"]) > 0.1


@functools.lru_cache(maxsize=1)  # Cnn14's are 330 MB
def full_size(architecture):
    """Weights and running statistics of a PANN by name."""
    encoder = cases.Case("", Encoder(architecture), (np.zeros((1, 64, 64), np.float32),), "")
    variables = {f"encoder/{name}": x for name, x in encoder.variables().items()}
    width = ARCHITECTURES[architecture].channels[-1]
    for layer, size in [("fc1", width), ("fc_audioset", 527)]:
        variables[f"{layer}/kernel"] = cases.weights(f"{layer}/kernel", (width, size))
        variables[f"{layer}/bias"] = cases.weights(f"{layer}/bias", (size,))
    return variables


def tagger(architecture, variables, log_mels):
    """Our PANN and, within it, our encoder: (B, T, D), embedding (B, D), probabilities (B, 527)."""
    module = PANN(527, Encoder(architecture))
    case = cases.Case("", module, (log_mels,), "")

    @jax.jit
    def apply(tree, log_mels):
        output, kept = module.apply(
            tree,
            log_mels,
            train=False,
            mutable=["intermediates"],
            capture_intermediates=lambda module, _: isinstance(module, Encoder),
        )
        return output, kept["intermediates"]["encoder"]["__call__"][0]

    output, h = apply(case.collections(variables), log_mels)
    probabilities = jax.nn.sigmoid(output.event_logits)
    return {"encoder": h, "embedding": output.embedding, "probabilities": probabilities}


def test_the_papers_ergl_at_full_size():
    options = {"tokens": "frame", "mel": True, "gate": "sigmoid", "gcn_layers": 2}
    case = cases.Case(
        "ERGL, Cnn14, 25 events, full size",
        ERGL(num_scenes=10, num_events=25, encoder=Encoder("cnn14"), **options),
        (cases.spectrogram("full", clips=1, frames=96, mels=64),),
        "ergl",
        {"architecture": "cnn14", **options},
        targets={
            "scene": np.eye(10, dtype=np.float32)[:1],
            "events": np.full((1, 25), 0.5, np.float32),
        },
    )
    # Query and key as at initialisation. With logits of dozens a float32 softmax, PyTorch's too, is
    # off by 1e-4.
    variables = {
        name: x / 2 if name.endswith(("query/kernel", "key/kernel")) else x
        for name, x in case.variables().items()
    }
    got = case.evaluate(variables)
    with torch.no_grad():
        p = torch_side.scope(variables, torch.float32)
        want, _ = torch_side.outputs(case, p, case.inputs, False, case.targets)
    compare.assert_equal(
        case.name,
        {f"evaluation/{name}": np.asarray(x) for name, x in got.items()},
        {f"evaluation/{name}": x.numpy() for name, x in want.items()},
        "torch",
        tolerance=1e-4,
    )
