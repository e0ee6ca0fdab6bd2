"""`ergl doctor`: what it prints, which failures it finds, and what it keeps private."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import ergl_jax
from ergl_jax import audio, pretrained
from ergl_jax.cli import main
from ergl_jax.inference import doctor


@pytest.fixture
def examine(capsys):
    """Runs the command; returns its status and each topic's text."""

    def examine(*arguments):
        status = main(["doctor", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert err == ""
        *lines, verdict = out.splitlines()
        found = {}
        for line in lines:
            topic, _, text = line.partition(": ")
            found[topic.rstrip(":")] = text.strip()
        failed = sum(text.startswith("FAILED: ") for text in found.values())
        assert verdict == (f"{failed} checks failed" if failed else "no check failed")
        assert status == (1 if failed else 0)
        return status, found

    return examine


def test_it_prints_versions_devices_and_a_bundle(examine, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("SECRET", "hidden")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JAX_DUMP_IR_TO", f"{tmp_path}/dumps:/data/jane/dumps")
    monkeypatch.setenv("LOGNAME", "jane")
    directory = shutil.copytree(tiny.workdir / "bundle", tmp_path / "bundle")
    status, found = examine("--bundle", directory)
    assert status == 0
    assert found["ergl_jax"] == ergl_jax.__version__ and found["jax"] == jax.__version__
    assert found["python"] == sys.version.split()[0] and "libsndfile" in found["soundfile"]
    assert found["ffmpeg"].endswith(f", by av {importlib.metadata.version('av')}")
    assert found["devices"].startswith("cpu, ")
    assert found["x64"] == "off" and found["XLA_FLAGS"] == '""' and "SECRET" not in found
    for topic in ["WAV", "FLAC", "OGG", "MP3"]:
        assert found[f"decode {topic}"].startswith("ok ("), topic
    for name in doctor.CHECKED:
        assert found[f"log-mel {name}"].startswith("ok ("), name

    config = json.loads((directory / "config.json").read_text())
    weights = load_file(directory / "model.safetensors")
    count = sum(x.size for name, x in weights.items() if name.startswith("params/"))
    assert found["model"] == f"ergl, cnn6 / 32, {count} parameters, float32"
    assert found["scenes"] == ", ".join(config["scenes"])
    assert found["front end"] == "panns_16k, 16000 Hz"
    assert config["licence"] in found["data"]
    assert found["second classify"].endswith(" s for 10 s of noise")

    assert found["bundle"] == "~/bundle"
    assert found["JAX_DUMP_IR_TO"] == "~/dumps:/data/USER/dumps"
    assert str(tmp_path) not in str(found)
    assert doctor.private(f"{tmp_path}2 {tmp_path} /janes") == f"{tmp_path}2 ~ /janes"


@pytest.fixture
def few(monkeypatch):
    """Checks only one front end."""
    monkeypatch.setattr(doctor, "CHECKED", ["paper"])


def test_broken_decoders_packages_and_bundles_are_failures(examine, few, tmp_path, monkeypatch):
    def read(path, sample_rate):
        if path.suffix == ".mp3":
            raise RuntimeError("no\ndecoder")
        if path.suffix == ".ogg":
            return np.zeros(sample_rate, np.float32)
        return audio.decode.read_audio(path, sample_rate)[path.suffix == ".flac" and 100 :]

    def installed(name):
        if name in ("torch", "soxr"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", installed)
    monkeypatch.setattr(doctor.audio, "read_audio", read)
    status, found = examine("--bundle", tmp_path)
    assert status == 1
    assert found["decode MP3"] == "FAILED: RuntimeError: no decoder"
    assert found["decode OGG"] == "FAILED: the tone is off by 0.50; its amplitude is 0.5"
    assert found["decode FLAC"] == "FAILED: a second at 16000 Hz has 15900 samples"
    assert found["decode WAV"].startswith("ok (")
    assert found["torch"] == "not installed" and found["soxr"] == "FAILED: not installed"
    assert found["bundle"].startswith("FAILED: ") and "is not a bundle" in found["bundle"]
    assert "model" not in found


def test_imprecise_and_wrong_devices_are_distinguished(examine, few, monkeypatch):
    exact = audio.log_mel
    for dtype in (jnp.bfloat16, np.float16):  # float16 has as many digits as TF32

        def rounded(waveform, front_end, dtype=dtype):
            return exact(jnp.asarray(waveform).astype(dtype).astype(jnp.float32), front_end)

        monkeypatch.setattr(doctor.audio, "log_mel", rounded)
        status, found = examine()
        assert status == 0
        assert "the device computes below float32's precision" in found["log-mel paper"]
        assert found["bundle"] == doctor.private(str(pretrained.default()))
    for offset in (2.0, np.nan):
        shifted = lambda *given, offset=offset: exact(*given) + offset  # noqa: E731
        monkeypatch.setattr(doctor.audio, "log_mel", shifted)
        status, found = examine()
        assert status == 1
        assert "this device computes wrong numbers" in found["log-mel paper"]


def test_device_memory_is_printed_if_known():
    def described(memory_stats):
        device = {"platform": "gpu", "device_kind": "A GPU", "memory_stats": memory_stats}
        return doctor._device(types.SimpleNamespace(**device))

    assert described(lambda: {"bytes_limit": 3 << 30}) == "gpu, A GPU, 3.0 GiB for JAX"
    assert described(lambda: None) == described(dict) == described({}.popitem) == "gpu, A GPU"


@pytest.mark.slow
def test_a_missing_platform_is_a_failure_without_a_traceback():
    done = subprocess.run(
        [sys.executable, "-m", "ergl_jax", "doctor"],
        env=os.environ | {"JAX_PLATFORMS": "abacus"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert "devices:             FAILED: RuntimeError: Unable to initialize backend" in done.stdout
    assert "decode WAV:          ok (" in done.stdout
