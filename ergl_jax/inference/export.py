"""A bundle as one file for other programs: StableHLO for JAX, ONNX for what isn't JAX.

Both map log-mel spectrograms (B, F, M), of any number B of clips, to calibrated probabilities; the
JSON beside them (`<file>.json`) names scenes and events and gives the front end number by number.
StableHLO runs on CPU, CUDA and TPU, and needs neither the bundle nor ergl_jax:

    exported = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
    found = exported.call(log_mel)
    found["scene_probabilities"]  # (B, scenes)
    found["event_probabilities"]  # (B, n), of a model that has events

How long newer versions of JAX read such a file, JAX decides: keep the bundle, and export it again.

ONNX has the same names: `onnxruntime.InferenceSession("model.onnx").run(None, {"log_mel": ...})`.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax import export as jax_export

import ergl_jax
from ergl_jax import audio
from ergl_jax.bundle import Bundle, is_bundle
from ergl_jax.errors import InputError
from ergl_jax.files import atomic_write, local_path, make_directory

PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCES = {"stablehlo": 1e-5, "onnx": 1e-4}  # of probabilities, on CPU, to the bundle's
BATCHES = (1, 3)  # that an export is checked at

Probabilities = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Written:
    """What `write` made.

    Attributes:
      path: the file; its description is `<path>.json`.
      description: what that holds.
      difference: the largest absolute one to the bundle's probabilities.
    """

    path: Path
    description: dict[str, Any]
    difference: float


def write(bundle: Bundle, out: Path, form: str = "stablehlo") -> Written:
    """Exports a bundle, reads it back and compares it with the bundle on CPU.

    Args:
      bundle: of any model.
      out: a file; or a directory, made where there is none, for model.stablehlo or model.onnx.
        A name without a suffix is a directory's.
      form: "stablehlo" or "onnx".

    Raises:
      InputError: an unknown form, a target that can't be written, what ONNX lacks, or outputs that
        are not the bundle's. An older file then stays.
    """
    if form not in TOLERANCES:
        raise InputError(f"format {form!r} is not one of: {', '.join(TOLERANCES)}")
    if form == "onnx":
        _check_onnx(bundle)
    path = target(out, form)
    content = _onnx(bundle) if form == "onnx" else _stablehlo(bundle)
    description = describe(bundle, form) | {"sha256": hashlib.sha256(content).hexdigest()}
    text = json.dumps(description, indent=2) + "\n"
    with atomic_write(path) as fresh, atomic_write(beside(path)) as fresh_description:
        fresh.write_bytes(content)
        fresh_description.write_text(text, encoding="utf-8")
        difference = compare(bundle, _READERS[form](fresh.read_bytes()))
        if not difference <= TOLERANCES[form]:  # NaN too
            raise InputError(
                f"{path} would differ from the bundle by {difference:.1e}, more than "
                f"{TOLERANCES[form]:g}: not written; please report this model's config.json"
            )
    return Written(path, description, difference)


def load(path: Path) -> tuple[Callable[[np.ndarray], Probabilities], dict[str, Any]]:
    """An exported file as a function of log-mel (B, F, M), and its description.

    Raises InputError where the file or the JSON beside it is missing, damaged, or another's.
    """
    path = local_path(path)
    try:
        content, text = path.read_bytes(), beside(path).read_bytes()
    except OSError as error:
        raise InputError(f"{error.filename}: can't be read: {error.strerror}") from error
    try:
        description = json.loads(text)
        read, digest = _READERS[description["format"]], description["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{beside(path)} describes no export: {error!r}; export again") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"{path} is damaged, or not what {beside(path).name} describes")
    try:
        return read(content), description
    except InputError:
        raise
    except Exception as error:  # of flatbuffers, MLIR or ONNX Runtime: there is no end of kinds
        raise InputError(f"{path} is no {description['format']} export: export again") from error


def target(out: Path, form: str) -> Path:
    """The file that `write` writes, its directory made."""
    out = local_path(out).absolute()
    if os.path.isdir(out) or not out.suffix:
        if os.path.exists(out) and not os.path.isdir(out):
            raise InputError(f"{out} is a file: name a directory, or a file that ends in .{form}")
        out = out / f"model.{form}"
    if out.suffix != f".{form}":  # it may be the recording, or be meant for the other format
        raise InputError(f"{out} does not end in .{form}: name such a file, or another --format")
    if is_bundle(out.parent):
        raise InputError(f"{out.parent} is a bundle, which holds nothing else: name another place")
    make_directory(out.parent, "the directory of the export")
    return out


def beside(path: Path) -> Path:
    """Where the description of an exported file lies."""
    return path.with_name(path.name + ".json")


def describe(bundle: Bundle, form: str) -> dict[str, Any]:
    """What who has the file alone must know, for JSON."""
    outputs = {}
    if bundle.scenes:
        outputs["scene_probabilities"] = ["batch", len(bundle.scenes)]
    if bundle.events:
        outputs["event_probabilities"] = ["batch", len(bundle.events)]
    return {
        "format": form,
        "platforms": list(PLATFORMS) if form == "stablehlo" else [],
        "input": {"log_mel": ["batch", *_clip(bundle)]},
        "outputs": outputs,
        "scenes": list(bundle.scenes),
        "events": list(bundle.events),
        "front_end": dataclasses.asdict(bundle.front_end),
        "clip_seconds": bundle.clip_seconds,
        "pad": bundle.pad,
        "temperature": bundle.temperature,
        "dataset": bundle.dataset,
        "licence": bundle.licence,
        "source": bundle.source,
        "versions": {"ergl_jax": ergl_jax.__version__, "jax": jax.__version__},
    }


def probabilities(bundle: Bundle) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """What is exported: log-mel (B, F, M) float32 -> probabilities, by the names of `describe`."""
    module = bundle.build()

    def run(log_mel):
        output = module.apply(bundle.variables, log_mel, train=False)
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
        features = np.asarray(audio.log_mel(_signals(bundle), bundle.front_end))
        run = jax.jit(probabilities(bundle))
        for batch in BATCHES:
            for start in range(0, len(features) - batch + 1, batch):
                part = features[start : start + batch]
                found, expected = call(part), run(part)
                if found.keys() != expected.keys():
                    return float("nan")
                differences += [np.abs(found[key] - expected[key]).max() for key in found]
    return float(np.max(differences))


def _signals(bundle: Bundle) -> np.ndarray:
    """(12, L): noise, tones, bursts, and noise that ends in digital silence, loud to faint."""
    rng = np.random.default_rng(0)
    length = bundle.front_end.num_samples(bundle.clip_seconds)
    seconds = np.arange(length) / bundle.front_end.sample_rate
    noise = rng.standard_normal(length)
    kinds = [
        noise,
        np.sin(2 * np.pi * 440 * seconds) + np.sin(2 * np.pi * 3000 * seconds),
        noise * (np.sin(2 * np.pi * 2 * seconds) > 0.5),
        noise * (seconds < bundle.clip_seconds / 3),
    ]
    return np.float32([level * kind for level in (0.3, 0.03, 0.001) for kind in kinds])


def _clip(bundle: Bundle) -> tuple[int, int]:
    """(F, M) of a clip."""
    return bundle.front_end.num_frames(bundle.clip_seconds), bundle.front_end.n_mels


def _stablehlo(bundle: Bundle) -> bytes:
    (batch,) = jax_export.symbolic_shape("batch")
    log_mel = jax.ShapeDtypeStruct((batch, *_clip(bundle)), np.float32)
    function = jax.jit(probabilities(bundle))
    return bytes(jax_export.export(function, platforms=PLATFORMS)(log_mel).serialize())


def _read_stablehlo(content: bytes) -> Callable[[np.ndarray], Probabilities]:
    return jax_export.deserialize(bytearray(content)).call


def _check_onnx(bundle: Bundle) -> None:
    """InputError for a model that has no graph in ONNX, or where the packages are missing."""
    for field, known in {"name": ("ergl", "cnn", "pann"), "compute_dtype": ("float32",)}.items():
        if bundle.model[field] not in known:
            raise InputError(
                f"model.{field}={bundle.model[field]!r}: ONNX is exported of {', '.join(known)} "
                "alone; export StableHLO"
            )
    _needs_onnx()


def _onnx(bundle: Bundle) -> bytes:
    from ergl_jax.inference import onnx_graph

    return onnx_graph.build(bundle).SerializeToString()


def _read_onnx(content: bytes) -> Callable[[np.ndarray], Probabilities]:
    _needs_onnx()
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda log_mel: dict(
        zip(names, session.run(names, {"log_mel": np.asarray(log_mel)}), strict=True)
    )


def _needs_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise InputError(
            f'{error.name} is not installed: pip install "ergl_jax[onnx]", or in a checkout '
            '"pip install .[onnx]"'
        ) from error


_READERS = {"stablehlo": _read_stablehlo, "onnx": _read_onnx}
