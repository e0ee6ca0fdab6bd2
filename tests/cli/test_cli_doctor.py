"""`ergl doctor`: what it tells, what it finds broken, and what it keeps to itself."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import librosa
import librosa_features
import numpy as np
import pytest
from safetensors.numpy import load_file

import ergl_jax
from ergl_jax import audio
from ergl_jax.audio import FRONT_ENDS
from ergl_jax.cli import main
from ergl_jax.inference import doctor


@pytest.fixture
def examine(capsys):
    """Runs the command; returns its status and the lines of each topic."""

    def examine(*arguments):
        status = main(["doctor", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert err == ""
        *lines, verdict = out.splitlines()
        found = {}
        for line in lines:
            topic, _, text = line.partition(": ")
            found.setdefault(topic.rstrip(":"), []).append(text.strip())
        failed = sum(text.startswith("FAILED: ") for texts in found.values() for text in texts)
        assert verdict == (f"{failed} of the checks failed" if failed else "no check failed")
        assert status == (1 if failed else 0)
        return status, found

    return examine


def test_it_tells_versions_devices_and_that_all_is_well(examine, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("SECRET", "hidden")
    status, found = examine()
    assert status == 0
    assert found["ergl_jax"] == [ergl_jax.__version__]
    assert found["jax"] == [jax.__version__] and found["numpy"] == [np.__version__]
    assert found["python"] == [sys.version.split()[0]]
    assert "libsndfile" in found["soundfile"][0]
    assert found["device 0"][0].startswith("cpu, ")
    assert found["x64"] == ["off"] and found["XLA_FLAGS"] == ['""']
    assert found["JAX_PLATFORMS"] == ["cpu"] and "SECRET" not in found
    assert found["compilation cache"] == [
        doctor.private(jax.config.jax_compilation_cache_dir or "none")
    ]
    for topic in ("decode WAV", "decode FLAC", "decode OGG", "decode MP3"):
        assert found[topic][0].startswith("ok ("), topic
    for name in FRONT_ENDS.keys() - {"scattering"}:
        assert found[f"log-mel {name}"][0].startswith("ok ("), name
    assert "bundle" not in found


def test_it_tells_what_a_bundle_is(examine, tiny):
    directory = tiny.workdir / "bundle"
    status, found = examine("--bundle", directory)
    config = json.loads((directory / "config.json").read_text())
    weights = load_file(directory / "model.safetensors")
    count = sum(x.size for name, x in weights.items() if name.startswith("params/"))
    assert status == 0
    assert found["model"] == [f"ergl, cnn6 / 32, {count} parameters, float32"]
    assert found["scenes"] == [", ".join(config["scenes"])]
    assert found["events"] == [", ".join(config["events"])]
    assert found["front end"] == ["panns_16k, 16000 Hz"]
    assert found["clips"] == ["2 s, filled with zero"]
    assert float(found["temperature"][0]) == pytest.approx(config["temperature"], rel=1e-4)
    assert config["licence"] in found["data"][0]
    first, second = (
        float(found[f"{which} classify"][0].split(" s for 10 s of noise")[0])
        for which in ("first", "second")
    )
    assert 0 < second < first  # compiled once


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: shutil.rmtree(path), "is not a bundle: it has no config.json"),
        (lambda path: (path / "model.safetensors").write_bytes(b"no"), "is damaged"),
    ],
)
def test_a_bundle_that_is_none_is_a_failed_check(examine, tiny, tmp_path, spoil, reason):
    directory = shutil.copytree(tiny.workdir / "bundle", tmp_path / "bundle")
    spoil(directory)
    status, found = examine("--bundle", directory)
    assert status == 1 and "model" not in found
    assert found["bundle"][1].startswith("FAILED: ") and reason in found["bundle"][1]


def test_a_format_that_does_not_come_back_is_told(examine, monkeypatch):
    def read(path, sample_rate):
        if path.suffix == ".mp3":
            raise RuntimeError("no\ndecoder")
        if path.suffix == ".ogg":
            return np.zeros(sample_rate, np.float32)
        return audio.decode.read_audio(path, sample_rate)[path.suffix == ".flac" and 100 :]

    monkeypatch.setattr(doctor.audio, "read_audio", read)
    status, found = examine()
    assert status == 1
    assert found["decode MP3"] == ["FAILED: RuntimeError: no decoder"]
    assert found["decode OGG"] == ["FAILED: the tone came back 0.50 off, where its level is 0.5"]
    assert found["decode FLAC"] == ["FAILED: a second at 16000 Hz has 15900 samples"]
    assert found["decode WAV"][0].startswith("ok (")


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16])  # float16 has as many digits as TF32
def test_a_device_of_less_precision_is_told(examine, monkeypatch, dtype):
    exact = audio.log_mel

    def rounded(waveform, front_end):
        return exact(jnp.asarray(waveform).astype(dtype).astype(jnp.float32), front_end)

    monkeypatch.setattr(doctor.audio, "log_mel", rounded)
    status, found = examine()
    assert status == 0
    for name in FRONT_ENDS.keys() - {"scattering"}:
        assert (
            "dB off: the device computes below float32's precision" in found[f"log-mel {name}"][0]
        )


@pytest.mark.parametrize("offset", [2.0, np.nan])
def test_a_device_that_computes_wrong_is_a_failed_check(examine, monkeypatch, offset):
    exact = audio.log_mel
    monkeypatch.setattr(doctor.audio, "log_mel", lambda *given: exact(*given) + offset)
    status, found = examine()
    assert status == 1
    assert "this device computes wrong numbers" in found["log-mel paper"][0]


@pytest.mark.parametrize("name", librosa_features.MEL)
def test_the_exact_log_mel_of_other_systems_is_librosas(name):
    waveform = np.random.default_rng(0).normal(0, 0.1, 100000).astype(np.float32)
    found = doctor.exact_log_mel(waveform, FRONT_ENDS[name])
    np.testing.assert_allclose(found, librosa_features.log_mel(name, waveform), atol=1e-6)


@pytest.mark.parametrize("name", ["paper", "panns_16k", "panns_32k"])
def test_the_exact_log_mel_is_librosas(name):
    front_end = FRONT_ENDS[name]
    waveform = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    power = librosa.feature.melspectrogram(
        y=waveform.astype(np.float64),
        sr=front_end.sample_rate,
        n_fft=front_end.n_fft,
        hop_length=front_end.hop,
        window=front_end.window,
        pad_mode="reflect",
        n_mels=front_end.n_mels,
        fmin=front_end.fmin,
        fmax=front_end.fmax,
    )
    expected = librosa.power_to_db(power, amin=1e-10, top_db=None).T
    np.testing.assert_allclose(doctor.exact_log_mel(waveform, front_end), expected, atol=1e-4)


def test_what_is_not_installed_is_told(examine, monkeypatch):
    version, missing = importlib.metadata.version, {"torch", "onnx"}

    def installed(name):
        if name in missing:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", installed)
    status, found = examine()
    assert status == 0 and found["torch"] == found["onnx"] == ["not installed"]
    missing.add("soxr")
    status, found = examine()
    assert status == 1 and found["soxr"] == ["FAILED: not installed"]


def test_memory_is_told_where_a_device_counts_it():
    class Device:
        platform, device_kind = "gpu", "A GPU"

        def __init__(self, stats):
            self.memory_stats = stats

    def refuses():
        raise RuntimeError("not counted")

    assert doctor._device(Device(lambda: {"bytes_limit": 3 << 30})) == "gpu, A GPU, 3.0 GiB for JAX"
    for stats in (lambda: None, dict, refuses):
        assert doctor._device(Device(stats)) == "gpu, A GPU"


def test_neither_home_nor_user_is_told(examine, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JAX_DUMP_IR_TO", f"{tmp_path}/dumps:/data/jane/dumps")
    monkeypatch.setenv("LOGNAME", "jane")
    shutil.copytree(tiny.workdir / "bundle", tmp_path / "bundle")
    _, found = examine("--bundle", tmp_path / "bundle")
    assert found["bundle"] == ["~/bundle"]
    assert found["JAX_DUMP_IR_TO"] == ["~/dumps:/data/USER/dumps"]
    assert str(tmp_path) not in str(found)
    assert doctor.private(f"{tmp_path}2 {tmp_path} /janes") == f"{tmp_path}2 ~ /janes"


def test_a_platform_that_is_not_there_is_failed_checks_and_no_trace():
    done = subprocess.run(
        [sys.executable, "-m", "ergl_jax", "doctor"],
        env=os.environ | {"JAX_PLATFORMS": "abacus"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert "devices:             FAILED: RuntimeError: Unable to initialize backend" in done.stdout
    assert "decode WAV:          ok (" in done.stdout
