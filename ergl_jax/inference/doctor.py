"""What a report of a problem should tell: versions, devices, and whether the basics work here."""

import dataclasses
import getpass
import importlib.metadata
import os
import platform
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import soundfile

import ergl_jax
from ergl_jax import audio
from ergl_jax.audio import FRONT_ENDS, FrontEnd
from ergl_jax.audio.front_end import MIN_POWER, mel_filters, window
from ergl_jax.errors import InputError, is_missing_platform
from ergl_jax.inference.classify import load

NEEDED = ("jax", "jaxlib", "flax", "numpy", "soxr", "librosa", "safetensors", "ml-collections")
OPTIONAL = ("optax", "orbax-checkpoint", "tensorflow-datasets", "torch", "onnx", "onnxruntime")
VARIABLES = ("JAX_", "XLA_", "ERGL_", "CUDA_VISIBLE_DEVICES", "GLIBC_TUNABLES", "OMP_NUM_THREADS")
FORMATS = {"WAV": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}
# Of the log-mel, in dB: more than float32 leaves of a tone in noise (5e-5), and more than products
# in bfloat16 or TF32 explain.
FLOAT32_DB, WRONG_DB = 1e-3, 1.0


@dataclasses.dataclass(frozen=True)
class Line:
    """One finding.

    Attributes:
      topic: what it is about, "decode MP3".
      text: what was found.
      failed: whether it is a check that failed.
    """

    topic: str
    text: str
    failed: bool = False


def examine(bundle: Path | None = None) -> Iterator[Line]:
    """Yields findings, each as soon as it is known; of a bundle's directory too if one is given."""
    yield from versions()
    yield from environment()
    for name in FORMATS:
        yield _check(f"decode {name}", lambda name=name: decode(name))
    for front_end in FRONT_ENDS.values():
        if front_end.is_scattering:
            yield Line(front_end.name, "not checked: it would take long to compile")
            continue
        yield _check(f"log-mel {front_end.name}", lambda front_end=front_end: features(front_end))
    if bundle is not None:
        yield from _bundle(bundle)


def private(text: str) -> str:
    """The same without the user's home directory, and their name as a part of a path."""
    home = os.path.expanduser("~").rstrip("/\\")
    if len(home) > 1:
        text = re.sub(re.escape(home) + r"(?![\w.-])", "~", text)
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # nobody
        return text
    return re.sub(rf"(?<=[/\\]){re.escape(name)}(?![\w.-])", "USER", text)


def versions() -> Iterator[Line]:
    yield Line("ergl_jax", ergl_jax.__version__)
    yield Line("python", platform.python_version())
    yield Line("platform", f"{platform.platform()}, {platform.machine()}")
    yield Line(
        "soundfile", f"{soundfile.__version__}, libsndfile {soundfile.__libsndfile_version__}"
    )
    for name in NEEDED + OPTIONAL:
        try:
            yield Line(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Line(name, "not installed", failed=name in NEEDED)


def environment() -> Iterator[Line]:
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    yield Line("cores", f"{len(usable)} of {os.cpu_count()}")
    try:
        devices = jax.local_devices()
    except (RuntimeError, AssertionError) as error:
        if not is_missing_platform(error):
            raise
        yield _failure("devices", error)
        devices = []
    for device in devices:
        yield Line(f"device {device.id}", _device(device))
    precision = jax.config.jax_default_matmul_precision or "the device's default"
    yield Line("matmul precision", precision)
    yield Line("x64", "on" if jax.config.jax_enable_x64 else "off")
    yield Line("compilation cache", jax.config.jax_compilation_cache_dir or "none")
    for name in sorted(os.environ):
        if name.startswith(VARIABLES) and "ADDRESS" not in name:  # it tells of a network
            yield Line(name, os.environ[name] or '""')


def _device(device: jax.Device) -> str:
    try:
        limit = (device.memory_stats() or {}).get("bytes_limit")
    except Exception:  # what a platform raises where it counts nothing
        limit = None
    memory = f", {limit / 2**30:.1f} GiB for JAX" if limit else ""
    return f"{device.platform}, {device.device_kind}{memory}"


def _check(topic: str, check: Callable[[], str]) -> Line:
    """What a check says, or how it failed."""
    try:
        return Line(topic, check())
    except Exception as error:  # whatever it is: here nothing can be taken as given
        return _failure(topic, error)


def _failure(topic: str, error: Exception) -> Line:
    reason = " ".join(str(error).split()) or "no reason given"
    if not isinstance(error, InputError):
        reason = f"{type(error).__name__}: {reason}"
    return Line(topic, reason, failed=True)


def decode(name: str) -> str:
    """Writes a second of a tone at 44.1 kHz, reads it at 16 kHz and compares; says "ok"."""
    rate, wanted = 44100, 16000
    tone = [0.5 * np.sin(2 * np.pi * 440 * np.arange(each) / each) for each in (rate, wanted)]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"tone.{name.lower()}"
        soundfile.write(path, tone[0], rate, format=name, subtype=FORMATS[name])
        found = audio.read_audio(path, wanted)
    if abs(len(found) - wanted) > 1:
        raise InputError(f"a second at {wanted} Hz has {len(found)} samples")
    inner = slice(1000, -1000)  # codecs smear the ends
    error = np.abs(found[: len(tone[1])] - tone[1][: len(found)])[inner].max()
    if not error < 0.05:
        raise InputError(f"the tone came back {error:.2f} off, where its level is 0.5")
    return f"ok ({error:.0e} off)"


def features(front_end: FrontEnd) -> str:
    """Compares a tone in noise with the same log-mel in float64 NumPy; says by how many dB."""
    rate = front_end.sample_rate
    length = max(rate, front_end.least_samples)
    waveform = np.random.default_rng(0).normal(0, 0.1, length)
    waveform += 0.1 * np.sin(2 * np.pi * 1000 * np.arange(length) / rate)
    waveform = waveform.astype(np.float32)  # no band far below another, where digits are lost
    found = np.asarray(audio.log_mel(waveform[None], front_end))[0]
    error = np.abs(found - exact_log_mel(waveform, front_end)).max() * front_end.decibels
    if not error < WRONG_DB:
        raise InputError(f"{error:.1e} dB off: this device computes wrong numbers")
    if error > FLOAT32_DB:
        return f"{error:.1e} dB off: the device computes below float32's precision"
    return f"ok ({error:.0e} dB off)"


def exact_log_mel(waveform: np.ndarray, front_end: FrontEnd) -> np.ndarray:
    """(L,) -> (F, M) as `audio.log_mel`, in float64 by NumPy's own Fourier transform."""
    waveform, parts = waveform.astype(np.float64), []
    if front_end.segment:
        waveform = np.pad(waveform, (0, front_end.span - front_end.hop))
    size = front_end.segment or len(waveform)
    for start in range(0, len(waveform) - size + 1, front_end.segment_hop or size):
        part, n_fft = waveform[start : start + size], front_end.n_fft
        if front_end.frames == "inside":
            part = np.pad(part, (n_fft - front_end.span) // 2)
        else:
            part = np.pad(part, n_fft // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(part, n_fft)[:: front_end.hop]
        values = np.abs(np.fft.rfft(frames * window(front_end)))
        mel = (values if front_end.magnitude else values**2) @ mel_filters(front_end)
        parts.append(mel[:-1] if front_end.frames == "centred_whole" else mel)
    mel = np.concatenate(parts)
    if front_end.offset:
        return np.log(mel + front_end.offset)
    return 10 * np.log10(np.maximum(mel, MIN_POWER))


def _bundle(directory: Path) -> Iterator[Line]:
    yield Line("bundle", str(directory))
    try:
        model = load(directory)
    except Exception as error:
        yield _failure("bundle", error)
        return
    bundle = model.bundle
    encoder, params = bundle.model["encoder"], bundle.variables["params"]
    width = f"width / {encoder['width_divisor']}"
    if "encoder" in params:
        width = f"{encoder['architecture']} / {encoder['width_divisor']}"
    parameters = sum(x.size for x in jax.tree.leaves(params))
    yield Line(
        "model",
        f"{bundle.model['name']}, {width}, "
        f"{parameters} parameters, {bundle.model['compute_dtype']}",
    )
    yield Line("scenes", ", ".join(bundle.scenes))
    yield Line("events", ", ".join(bundle.events) or "none")
    yield Line("front end", f"{bundle.front_end.name}, {bundle.front_end.sample_rate} Hz")
    yield Line("clips", f"{bundle.clip_seconds:g} s, filled with {bundle.pad}")
    yield Line("temperature", f"{bundle.temperature:g}")
    yield Line("data", f"{bundle.dataset}; licence: {bundle.licence}")
    if bundle.source:
        yield Line("weights", bundle.source)
    rate = bundle.front_end.sample_rate
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * rate).astype(np.float32)
    for which in ("first", "second"):

        def classify():
            start = time.perf_counter()
            model.classify(noise, sample_rate=rate)
            return f"{time.perf_counter() - start:.3f} s for 10 s of noise"

        yield _check(f"{which} classify", classify)
