"""A bundle: a trained model in a directory of `config.json` and `model.safetensors`.

Training writes it; inference needs nothing else from training. `config.json` has the
model's configuration, every setting of the front end, clip length and padding, names of scenes and
events, the data's licence, and versions. The weights store its SHA-256, so that an edited
`config.json` is refused.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax
import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load as load_weights
from safetensors.numpy import save_file

import ergl_jax
from ergl_jax import registry, schema
from ergl_jax.audio import FRONT_ENDS, FrontEnd
from ergl_jax.config import ModelConfig
from ergl_jax.errors import InputError
from ergl_jax.files import atomic_write, is_remote, user_path

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = 1
RANGES = {"clip_seconds": (0.01, 3600.0), "temperature": (1e-3, 1e3)}
DIGEST = "config_sha256"  # in the metadata of the weights; older bundles have none

_FRONT_END_DEFAULTS = {  # of the fields that may be absent
    field.name: field.default
    for field in dataclasses.fields(FrontEnd)
    if field.default is not dataclasses.MISSING
}
_FIELDS: dict[str, Any] = {
    "format": int,
    "model": {
        "name": str,
        "compute_dtype": str,
        "encoder": {"architecture": str, "width_divisor": int, "dropout": float},
        "dropout": float,
    },
    "scenes": list,
    "events": list,
    "front_end": {
        field.name: field.type
        for field in dataclasses.fields(FrontEnd)
        if field.name not in _FRONT_END_DEFAULTS
    },
    "clip_seconds": float,
    "pad": str,
    "licence": str,
    "dataset": str,
    "source": str,
    "temperature": float,
}
_MODEL_FIELDS: Mapping[str, schema.Schema] = {  # which a model of this name needs as well
    "ergl": {"channels": int, "tokens": str, "mel": bool, "gcn": {"layers": int, "gate": str}},
    "pann_scene": {"variant": str, "frozen": bool},
    "nnf": {"variant": str},
    "mltf": {"variant": str},
}
_ADDED_LATER = {"source": "", "temperature": 1.0}  # absent from older bundles


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A trained model with everything needed to use it.

    Attributes:
      model: its configuration.
      variables: {"params": ..., "batch_stats": ...}, numpy arrays.
      scenes, events: names, in the order of the model's outputs.
      front_end: makes its input (F, M) from a waveform.
      clip_seconds: length of its clips.
      pad: how shorter recordings were filled, "zero" or "repeat".
      licence: of the data it was trained on.
      dataset: name of that data.
      source: where its initial weights come from; "" for random ones.
      temperature: scene logits are divided by it, so that their softmax is calibrated; 1 where
        there were no validation clips to fit it to.
    """

    model: ModelConfig
    variables: Mapping[str, Any]
    scenes: tuple[str, ...]
    events: tuple[str, ...]
    front_end: FrontEnd
    clip_seconds: float
    pad: str
    licence: str
    dataset: str
    source: str = ""
    temperature: float = 1.0

    def build(self) -> nn.Module:
        """The Flax module that `variables` belong to."""
        return registry.build(self.model, num_scenes=len(self.scenes), num_events=len(self.events))

    def save(self, directory: Path) -> None:
        """Writes a new directory and renames it to `directory`; replaces an older bundle.

        Raises InputError if `directory` has anything but a bundle in it, or the disk is full.
        """
        directory = check_target(directory)
        fresh = directory.with_name(directory.name + ".writing")
        old = directory.with_name(directory.name + ".replaced")
        config = {
            "format": FORMAT,
            "model": self.model.to_dict(),
            "scenes": list(self.scenes),
            "events": list(self.events),
            "front_end": self.front_end.numbers(),
            "clip_seconds": self.clip_seconds,
            "pad": self.pad,
            "normalisation": "none outside the model, which begins with its own",
            "dataset": self.dataset,
            "licence": self.licence,
            "source": self.source,
            "temperature": self.temperature,
            "versions": {
                "ergl_jax": ergl_jax.__version__,
                "jax": jax.__version__,
                "flax": flax.__version__,
            },
        }
        flat = flatten_dict(self.variables, sep="/")
        flat = {name: np.ascontiguousarray(x) for name, x in flat.items()}
        text = (json.dumps(config, indent=2) + "\n").encode()
        digest = {DIGEST: hashlib.sha256(text).hexdigest()}
        if is_remote(directory):  # a bucket cannot rename directories
            with atomic_write(directory / WEIGHTS) as file:
                save_file(flat, file, metadata=digest)
            with atomic_write(directory / CONFIG) as file:
                file.write_bytes(text)
            return
        try:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            (fresh / CONFIG).write_bytes(text)
            save_file(flat, fresh / WEIGHTS, metadata=digest)
            if directory.exists():  # by renaming, so that no reader sees half of one
                shutil.rmtree(old, ignore_errors=True)
                os.replace(directory, old)
            os.replace(fresh, directory)
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"{directory} can't be written: {reason}; make space or name another directory"
            ) from error
        finally:
            if old.exists() and not directory.exists():
                os.replace(old, directory)
            shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def check_target(directory: Path) -> Path:
    """The absolute path of a directory to save a bundle to, which saving would replace.

    Raises InputError for a file, or a directory that has anything but a bundle in it.
    """
    directory = user_path(directory)
    directory = directory if is_remote(directory) else directory.absolute()
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file: name another directory for the bundle")
    if directory.exists():
        if strange := sorted({path.name for path in directory.iterdir()} - {CONFIG, WEIGHTS}):
            raise InputError(
                f"{directory} has {strange[0]} in it, which is no part of a bundle: move it away, "
                "or name another directory"
            )
    return directory


def load(directory: str | os.PathLike) -> Bundle:
    """The bundle in `directory`.

    Raises InputError if a file is missing or damaged, this version cannot reproduce the front end,
    or config.json or the weights do not belong together.
    """
    directory = user_path(directory)
    path, weights_path = directory / CONFIG, directory / WEIGHTS
    try:
        text, weights = path.read_bytes(), weights_path.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        name = CONFIG if not path.is_file() else WEIGHTS
        reason = f"it has no {name}" if missing else f"{name}: {error.strerror}"
        raise InputError(f"{directory} is not a bundle: {reason}") from error
    try:
        bundle = _parse(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {error}") from error
    try:
        flat = load_weights(weights)
    except Exception as error:  # besides its own errors, those of NumPy
        raise InputError(f"{weights_path} is damaged: {error}") from error
    try:
        _check_weights(bundle, flat)
    except Exception as error:  # of tracing the model, besides ValueError
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{weights_path} does not fit {CONFIG}: {reason}") from error
    digest = _metadata(weights).get(DIGEST)
    if digest and digest != hashlib.sha256(text).hexdigest():
        raise InputError(
            f"{path} is not the one that {WEIGHTS} was saved with: restore it, or change the "
            "bundle from Python and save it (dataclasses.replace)"
        )
    return dataclasses.replace(bundle, variables=unflatten_dict(flat, sep="/"))


def _parse(text: bytes) -> Bundle:
    """config.json as a Bundle without variables; ValueError names a wrong field."""
    config = json.loads(text)
    if isinstance(config, dict) and config.get("format", FORMAT) != FORMAT:
        raise ValueError(
            f"format={config['format']!r}, but this version reads only {FORMAT}: install the "
            "version of ergl_jax that wrote it"
        )
    if isinstance(config, dict):
        config = _ADDED_LATER | config
    schema.check(config, _FIELDS, others=True)
    model = config["model"]
    schema.check(model, _MODEL_FIELDS.get(model["name"], {}), "", "model.", others=True)
    found = config["front_end"]
    front_end = FRONT_ENDS.get(found["name"])
    if not front_end or dataclasses.asdict(front_end) != _FRONT_END_DEFAULTS | found:
        raise ValueError(f"this version can't reproduce the front end {found}")
    for field, (low, high) in RANGES.items():
        if not low <= config[field] <= high:
            raise ValueError(f"{field}={config[field]} is not from {low:g} to {high:g}")
    if config["pad"] not in ("zero", "repeat"):
        raise ValueError(f'pad={config["pad"]!r} is neither "zero" nor "repeat"')
    for field in ("scenes", "events"):
        names = config[field]
        if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise ValueError(f"{field} is not a list of different names: {str(names)[:60]}")
    if not config["scenes"] and model["name"] != "pann":
        raise ValueError("scenes is empty, which only a PANN's may be")
    return Bundle(
        **{name: config[name] for name in _FIELDS if name != "format"}
        | {
            "model": ModelConfig.from_saved(model),
            "variables": {},
            "scenes": tuple(config["scenes"]),
            "events": tuple(config["events"]),
            "front_end": front_end,
        }
    )


def is_bundle(directory: Path) -> bool:
    """Whether a directory has a bundle's two files."""
    return all(os.path.isfile(directory / name) for name in (CONFIG, WEIGHTS))


def _check_weights(bundle: Bundle, flat: Mapping[str, np.ndarray]) -> None:
    """ValueError unless names, shapes and types of the weights are those of the model."""
    if bundle.model.name == "ergl" and bundle.model.gcn.layers > len(flat):
        # Before that many layers are traced.
        raise ValueError(f"model.gcn.layers={bundle.model.gcn.layers}, but there are fewer weights")
    frames = bundle.front_end.num_frames(bundle.clip_seconds)
    clip = jax.ShapeDtypeStruct((1, frames, bundle.front_end.n_mels), np.float32)
    model = bundle.build()
    wanted = flatten_dict(
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), clip), sep="/"
    )
    if missing := sorted(wanted.keys() - flat.keys()):
        raise ValueError(f"the weights lack {missing[0]}")
    if unknown := sorted(flat.keys() - wanted.keys()):
        raise ValueError(f"the weights have {unknown[0]}, which the model does not")
    for name, leaf in wanted.items():
        found = flat[name]
        if found.shape != leaf.shape or found.dtype != leaf.dtype:
            raise ValueError(
                f"{name} is {found.dtype} {found.shape}, the model has {leaf.dtype} {leaf.shape}"
            )


def _metadata(weights: bytes) -> dict[str, str]:
    """The metadata of a .safetensors file."""
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    return header.get("__metadata__", {})
