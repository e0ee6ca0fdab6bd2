"""Exports a bundle as one file for other programs: StableHLO for JAX, ONNX for the rest.

Both map log-mel spectrograms (B, F, M), of any number B of clips, to probabilities. The
JSON next to the file (`<file>.json`) has all that leads from a recording to the result of
`ergl classify`, but for its abstention; docs/export.md has programs that do so. Keep the bundle:
JAX guarantees for a limited time only that newer versions read StableHLO.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax import export as jax_export

import ergl_jax
from ergl_jax import audio
from ergl_jax.audio import mel
from ergl_jax.audio.features import MIN_POWER
from ergl_jax.bundle import Bundle, is_bundle
from ergl_jax.errors import InputError, require
from ergl_jax.files import (
    atomic_write,
    check_directory,
    local_path,
    make_directory,
)
from ergl_jax.inference.windows import min_rest
from ergl_jax.kernels.lanes import free_layouts
from ergl_jax.models.panns import ARCHITECTURES

PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCES = {"stablehlo": 1e-5, "onnx": 1e-4}  # of probabilities, against the bundle's on CPU
BATCHES = (1, 3)  # numbers of clips that an export is checked with

Probabilities = Mapping[str, np.ndarray]


class Written(NamedTuple):
    """What `write` wrote: the file, its description, its largest difference from the bundle."""

    path: Path
    description: dict[str, Any]
    difference: float


def write(bundle: Bundle, out: Path, form: str = "stablehlo") -> Written:
    """Exports a bundle, reads the file back and compares it with the bundle on CPU.

    Args:
      bundle: of any model; for ONNX, a float32 ERGL, dynamic event graph, CNN or PANN.
      out: a file, or a directory for model.stablehlo or model.onnx, created if needed. A name
        without a suffix is a directory.
      form: "stablehlo" or "onnx".

    Raises:
      InputError: `out` can't be written, ONNX lacks the model or isn't installed, or the exported
        file's outputs differ from the bundle's. An existing file is then left as it is.
    """
    path = _target(out, form)
    make, read = _FORMATS[form]
    content = make(bundle)
    description = describe(bundle, form) | {"sha256": hashlib.sha256(content).hexdigest()}
    text = json.dumps(description, indent=2) + "\n"
    make_directory(path.parent, "the directory of the export")
    with atomic_write(path) as tmp_path, atomic_write(description_path(path)) as tmp_description:
        tmp_path.write_bytes(content)
        tmp_description.write_text(text, encoding="utf-8")
        difference = compare(bundle, read(tmp_path.read_bytes()))
        if not difference <= TOLERANCES[form]:  # NaN too
            raise InputError(
                f"{path} would differ from the bundle by {difference:.1e}, more than "
                f"{TOLERANCES[form]:g}: not written; please report this model's config.json"
            )
    return Written(path, description, difference)


def description_path(path: Path) -> Path:
    """Of an exported file."""
    return path.with_name(path.name + ".json")


def _target(out: Path, form: str) -> Path:
    """The file to write."""
    out = local_path(out).absolute()
    if os.path.isdir(out) or not out.suffix:
        out = out / f"model.{form}"
    if out.suffix != f".{form}" or is_bundle(out.parent):
        raise InputError(f"{out}: name a file that ends in .{form}, outside of a bundle")
    check_directory(out.parent, "the directory of the export")
    return out


def describe(bundle: Bundle, form: str) -> dict[str, Any]:
    """All that a user of the file needs, for JSON; docs/export.md has the fields."""
    names = {"scene_probabilities": bundle.scenes, "event_probabilities": bundle.events}
    clip_samples = bundle.front_end.num_samples(bundle.clip_seconds)
    copied = ("clip_seconds", "pad", "temperature", "calibration", "dataset", "licence", "source")
    return {
        "format": form,
        "platforms": list(PLATFORMS) if form == "stablehlo" else [],
        "input": {"log_mel": ["batch", *bundle.clip_shape]},
        "outputs": {name: ["batch", len(each)] for name, each in names.items() if each},
        "abstains": False,  # from unknown sounds, as the bundle may
        "scenes": list(bundle.scenes),
        "events": list(bundle.events),
        "front_end": dataclasses.asdict(bundle.front_end),
        "recording": {
            "resampling": "soxr_hq",
            "clip_samples": clip_samples,
            "long": "windows",
            "min_rest_samples": min_rest(clip_samples),
        },
        "melspectrogram": mel.librosa_arguments(bundle.front_end),
        "logarithm": {
            "scale": 1.0 if bundle.front_end.offset else 10 / math.log(10),
            "floor": 0.0 if bundle.front_end.offset else MIN_POWER,
            "offset": bundle.front_end.offset,
        },
        **{name: getattr(bundle, name) for name in copied},
        "versions": {"ergl_jax": ergl_jax.__version__, "jax": jax.__version__},
    }


def probabilities(bundle: Bundle) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """The exported function: log-mel (B, F, M) float32 -> probabilities, named as in `describe`."""
    module = bundle.build()

    def run(log_mel):
        output: Any = module.apply(bundle.variables, log_mel, train=False)
        found = {}
        if output.scene_logits is not None:
            found["scene_probabilities"] = nn.softmax(output.scene_logits / bundle.temperature)
        if output.event_logits is not None:
            found["event_probabilities"] = nn.sigmoid(output.event_logits)
        return found

    return run


def compare(bundle: Bundle, call: Callable[[np.ndarray], Probabilities]) -> float:
    """The largest absolute difference of probabilities, on CPU, over noise, tones and silence."""
    differences = []
    with jax.default_device(jax.devices("cpu")[0]):
        features = np.asarray(audio.log_mel(_test_signals(bundle), bundle.front_end))
        run = jax.jit(probabilities(bundle))
        for batch in BATCHES:
            for start in range(0, len(features) - batch + 1, batch):
                part = features[start : start + batch]
                found, expected = call(part), run(part)
                if found.keys() != expected.keys():
                    return float("nan")
                differences += [np.abs(found[key] - expected[key]).max() for key in found]
    return float(np.max(differences))


def _test_signals(bundle: Bundle) -> np.ndarray:
    """(12, L): noise, tones, bursts, and noise that ends in digital silence, loud to faint."""
    length = bundle.front_end.num_samples(bundle.clip_seconds)
    seconds = np.arange(length) / bundle.front_end.sample_rate
    noise = np.random.default_rng(0).standard_normal(length)
    signals = [
        noise,
        np.sin(2 * np.pi * 440 * seconds) + np.sin(2 * np.pi * 3000 * seconds),
        noise * (np.sin(2 * np.pi * 2 * seconds) > 0.5),
        noise * (seconds < bundle.clip_seconds / 3),
    ]
    levels = (0.3, 0.03, 0.001)
    return np.array([level * signal for level in levels for signal in signals], np.float32)


def _stablehlo(bundle: Bundle) -> bytes:
    (batch,) = jax_export.symbolic_shape("batch")
    log_mel = jax.ShapeDtypeStruct((batch, *bundle.clip_shape), np.float32)
    function = jax.jit(probabilities(bundle))
    with free_layouts():
        exported = jax_export.export(function, platforms=PLATFORMS)(log_mel)
    return bytes(exported.serialize())


def _read_stablehlo(content: bytes) -> Callable[[np.ndarray], Probabilities]:
    return jax_export.deserialize(bytearray(content)).call


def _onnx(bundle: Bundle) -> bytes:
    model = bundle.model
    for field, value, known in (
        ("name", model.name, ("ergl", "ergl_dynamic", "cnn", "pann")),
        ("variant", model.variant, ("", "events", "relations")),  # of ergl_dynamic
        ("encoder.architecture", model.encoder.architecture, tuple(ARCHITECTURES)),
        ("compute_dtype", model.compute_dtype, ("float32",)),
    ):
        if value not in known:
            raise InputError(
                f"model.{field}={value!r}: ONNX export supports only "
                f"{', '.join(filter(None, known))} or none; export StableHLO"
                if "" in known
                else f"model.{field}={value!r}: ONNX export supports only "
                f"{', '.join(known)}; export StableHLO"
            )
    for package in ("onnx", "onnxruntime"):
        require(package, "onnx")
    from ergl_jax.inference import onnx_graph

    return onnx_graph.build(bundle).SerializeToString()


def _read_onnx(content: bytes) -> Callable[[np.ndarray], Probabilities]:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda log_mel: dict(
        zip(names, session.run(names, {"log_mel": np.asarray(log_mel)}), strict=True)
    )


_FORMATS = {"stablehlo": (_stablehlo, _read_stablehlo), "onnx": (_onnx, _read_onnx)}
