"""What a bug report needs: versions, devices, and whether the basics work on this machine."""

import getpass
import importlib.metadata
import os
import platform
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import soundfile

import ergl_jax
from ergl_jax import audio, pretrained
from ergl_jax.audio import FRONT_ENDS, FrontEnd, ffmpeg
from ergl_jax.audio.mel import librosa_arguments
from ergl_jax.inference.classify import Model, load

REQUIRED = ("jax", "jaxlib", "flax", "numpy", "soxr", "librosa", "safetensors", "ml-collections")
OPTIONAL = ("optax", "orbax-checkpoint", "tensorflow-datasets", "torch", "onnx", "onnxruntime")
VARIABLES = ("JAX_", "XLA_", "ERGL_", "CUDA_VISIBLE_DEVICES", "GLIBC_TUNABLES", "OMP_NUM_THREADS")
FORMATS = {"WAV": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}
CHECKED = ("paper", "panns_16k", "panns_32k")  # front ends
# Of the log-mel, in dB: more than float32's rounding of a tone in noise (5e-5), and more than
# products in bfloat16 or TF32 explain.
FLOAT32_DB, WRONG_DB = 1e-3, 1.0


class Line(NamedTuple):
    """One finding: its topic, what was found, and whether it is a check that failed."""

    topic: str
    text: str
    failed: bool = False


def examine(bundle: str | Path | None = None) -> Iterator[Line]:
    """Yields each finding as soon as it is available; the last ones are about a bundle, by default
    that of `pretrained.default`."""
    yield from _lines(_machine())
    bundle = bundle or pretrained.default()
    try:
        model = load(bundle)
    except Exception as error:
        yield _failure("bundle", error)
    else:
        yield from _lines({"bundle": str(bundle)} | _model(model))


def _lines(table: Mapping[str, str | Callable[[], str]]) -> Iterator[Line]:
    for topic, found in table.items():
        try:
            yield Line(topic, found if isinstance(found, str) else found())
        except Exception as error:  # on a broken machine, anything may be raised
            yield _failure(topic, error)


def _failure(topic: str, error: Exception) -> Line:
    reason = " ".join(str(error).split()) or "no reason given"
    if not isinstance(error, ValueError):  # those of the checks below, and InputError
        reason = f"{type(error).__name__}: {reason}"
    return Line(topic, reason, failed=True)


def _machine() -> dict[str, str | Callable[[], str]]:
    """Facts, and checks: functions that return text, or raise if something is broken."""
    cores = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    config: Any = jax.config
    variables = sorted(name for name in os.environ if name.startswith(VARIABLES))
    return {
        "ergl_jax": ergl_jax.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.platform()}, {platform.machine()}",
        "soundfile": f"{soundfile.__version__}, libsndfile {soundfile.__libsndfile_version__}",
        "ffmpeg": ffmpeg.version,
        "cores": f"{len(cores)} of {os.cpu_count()}",
        "matmul precision": config.jax_default_matmul_precision or "the device's default",
        "x64": "on" if config.jax_enable_x64 else "off",
        "compilation cache": config.jax_compilation_cache_dir or "none",
        # Network addresses are private.
        **{name: os.environ[name] or '""' for name in variables if "ADDRESS" not in name},
        **{name: partial(_version, name) for name in REQUIRED + OPTIONAL},
        "devices": lambda: "; ".join(map(_device, jax.local_devices())),
        **{f"decode {name}": partial(_decode, name) for name in FORMATS},
        **{f"log-mel {name}": partial(_log_mel, FRONT_ENDS[name]) for name in CHECKED},
    }


def _model(model: Model) -> dict[str, str | Callable[[], str]]:
    bundle, front_end = model.bundle, model.bundle.front_end
    encoder, params = bundle.model.encoder, bundle.variables["params"]
    architecture = encoder.architecture if "encoder" in params else "width"
    verb = "classify" if model.scenes else "embed"
    parameters = sum(x.size for x in jax.tree.leaves(params))
    return {
        "model": f"{bundle.model.name}, {architecture} / {encoder.width_divisor}, "
        f"{parameters} parameters, {bundle.model.compute_dtype}",
        "scenes": ", ".join(bundle.scenes) or "none",
        "events": ", ".join(bundle.events) or "none",
        "front end": f"{front_end.setting}, {front_end.sample_rate} Hz",
        "clips": f"{bundle.clip_seconds:g} s, filled with {bundle.pad}",
        "probabilities": bundle.about_probabilities,
        "unknown sounds": bundle.about_known,
        "data": f"{bundle.dataset}; licence: {bundle.licence}",
        "weights": bundle.source or "trained from scratch",
        f"first {verb}": partial(_run, model, verb),
        f"second {verb}": partial(_run, model, verb),
    }


def private(text: str) -> str:
    """The same without the user's home directory, and their name as a part of a path."""
    home = os.path.expanduser("~").rstrip("/\\")
    if len(home) > 1:
        text = re.sub(re.escape(home) + r"(?![\w.-])", "~", text)
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        return text
    return re.sub(rf"(?<=[/\\]){re.escape(name)}(?![\w.-])", "USER", text)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if name in REQUIRED:
            raise ValueError("not installed") from None
        return "not installed"


def _device(device: jax.Device) -> str:
    try:
        limit = (device.memory_stats() or {}).get("bytes_limit")
    except Exception:  # some platforms raise instead of returning None
        limit = None
    memory = f", {limit / 2**30:.1f} GiB for JAX" if limit else ""
    return f"{device.platform}, {device.device_kind}{memory}"


def _decode(name: str) -> str:
    """Writes a second of a tone at 44.1 kHz, reads it at 16 kHz and compares."""
    rate, wanted = 44100, 16000
    written, expected = (np.sin(2 * np.pi * 440 * np.arange(x) / x) / 2 for x in (rate, wanted))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"tone.{name.lower()}"
        soundfile.write(path, written, rate, format=name, subtype=FORMATS[name])
        found = audio.read_audio(path, wanted)
    if abs(len(found) - wanted) > 1:
        raise ValueError(f"a second at {wanted} Hz has {len(found)} samples")
    error = np.abs(found[:wanted] - expected[: len(found)])[1000:-1000].max()  # codecs blur ends
    if not error < 0.05:
        raise ValueError(f"the tone is off by {error:.2f}; its amplitude is 0.5")
    return f"ok ({error:.0e} off)"


def _log_mel(front_end: FrontEnd) -> str:
    """Compares log-mel of a tone in noise with librosa's in float64."""
    import librosa  # not above: slow

    seconds = np.arange(front_end.sample_rate) / front_end.sample_rate
    waveform = np.random.default_rng(0).normal(0, 0.1, len(seconds))  # fills all bands
    waveform += 0.1 * np.sin(2 * np.pi * 1000 * seconds)
    waveform = waveform.astype(np.float32)
    found = np.asarray(audio.log_mel(waveform[None], front_end))[0]
    arguments: Any = librosa_arguments(front_end)
    power = librosa.feature.melspectrogram(y=waveform.astype(np.float64), **arguments)
    error = np.abs(found - librosa.power_to_db(power, amin=1e-10, top_db=None).T).max()
    if not error < WRONG_DB:
        raise ValueError(f"{error:.1e} dB off: this device computes wrong numbers")
    if error > FLOAT32_DB:
        return f"{error:.1e} dB off: the device computes below float32's precision"
    return f"ok ({error:.0e} dB off)"


def _run(model: Model, verb: str) -> str:
    rate = model.bundle.front_end.sample_rate
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * rate).astype(np.float32)
    start = time.perf_counter()
    getattr(model, verb)(noise, sample_rate=rate)
    return f"{time.perf_counter() - start:.3f} s for 10 s of noise"
