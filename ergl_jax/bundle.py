"""A bundle is what travels: a directory of `config.json` and `model.safetensors`.

`config.json` holds all that inference needs to know: the model's configuration, the front end
number by number, clip length and padding, scene and event names, the training data's licence, and
the versions that wrote it. It needs nothing of training to be read. `model.safetensors` knows the
hash of the `config.json` that it belongs to: a name or a front end that was changed there would
change what the model says without anybody being told.
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
import ml_collections
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load as load_weights
from safetensors.numpy import save_file

import ergl_jax
from ergl_jax import registry, schema
from ergl_jax.audio import FRONT_ENDS, FrontEnd
from ergl_jax.errors import InputError
from ergl_jax.files import atomic_write, is_remote, user_path

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = 1
RANGES = {"clip_seconds": (0.01, 3600.0), "temperature": (1e-3, 1e3)}  # what can be read
DIGEST = "config_sha256"  # in the metadata of the weights; older bundles have none

_FRONT_END_DEFAULTS = {  # of the fields that need not be there
    field.name: field.default
    for field in dataclasses.fields(FrontEnd)
    if field.default is not dataclasses.MISSING
}
_FIELDS = {
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
_OF_A_MODEL = {
    "ergl": {
        "channels": int,
        "tokens": str,
        "mel": bool,
        "gcn": {"layers": int, "gate": str},
    },
    "pann_scene": {"variant": str, "frozen": bool},
    "nnf": {"variant": str},
    "mltf": {"variant": str},
}
_ADDED_LATER = {"source": "", "temperature": 1.0}  # which older bundles don't have


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A trained model with all that is needed to use it.

    Attributes:
      model: the `config.model` it was built from.
      variables: {"params": ..., "batch_stats": ...}, numpy arrays.
      scenes, events: names, in the order of the model's outputs.
      front_end: what makes its input (F, M) from a waveform.
      clip_seconds: length of the clips it was trained on.
      pad: how shorter recordings were filled, "zero" or "repeat".
      licence: of the data it was trained on.
      dataset: name of that data.
      source: where its weights come from, or those it began with; "" for none but its training.
      temperature: what scene logits are divided by so that their softmax is calibrated; 1 where
        no validation clips were there to fit it on.
    """

    model: Mapping[str, Any]
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
        return registry.build(
            ml_collections.ConfigDict(self.model),
            num_scenes=len(self.scenes),
            num_events=len(self.events),
        )

    def save(self, directory: Path) -> None:
        """Writes the bundle beside `directory` and renames it there; an older one is replaced.

        Raises InputError where `directory` holds anything but a bundle, or the disk is full.
        """
        directory = check_target(directory)
        fresh = directory.with_name(directory.name + ".writing")
        old = directory.with_name(directory.name + ".replaced")
        config = {
            "format": FORMAT,
            "model": dict(self.model),
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
        if is_remote(directory):  # file by file: a bucket renames no directory
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
            if directory.exists():  # by renaming: nobody finds half of one
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
    """The absolute path of a directory to save a bundle to, where none is or only a bundle.

    Raises InputError for a file, or a directory that holds anything else: saving replaces it.
    """
    directory = user_path(directory)
    directory = directory if is_remote(directory) else directory.absolute()
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file: name another directory for the bundle")
    if directory.exists():
        if strange := sorted({path.name for path in directory.iterdir()} - {CONFIG, WEIGHTS}):
            raise InputError(
                f"{directory} holds {strange[0]}, which is no part of a bundle: move it away, or "
                "name another directory"
            )
    return directory


def load(directory: Path) -> Bundle:
    """The bundle in `directory`.

    Raises InputError where a file is missing or damaged, the front end is one that this version
    can't reproduce, the weights are not those of the model, or the configuration is not the one
    that they were saved with.
    """
    directory = user_path(directory)
    try:
        content = {}
        for name in (CONFIG, WEIGHTS):
            content[name] = (directory / name).read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{directory} is not a bundle: it has no {name}") from error
    except OSError as error:
        raise InputError(f"{error.filename}: can't be read: {error.strerror}") from error
    path, weights_path = directory / CONFIG, directory / WEIGHTS
    try:
        config = json.loads(content[CONFIG])
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    try:
        flat = load_weights(content[WEIGHTS])
    except Exception as error:  # besides its own errors, whatever NumPy makes of the rest
        raise InputError(f"{weights_path} is damaged: {error}") from error
    written = config.get("format", FORMAT) if isinstance(config, dict) else FORMAT
    if written != FORMAT:
        raise InputError(
            f"{path}: format={written!r}, and this version reads {FORMAT} alone: "
            "install the version of ergl_jax that wrote it"
        )
    config = _checked(config, path)
    bundle = Bundle(
        **{name: config[name] for name in _FIELDS}
        | {
            "variables": {},
            "scenes": tuple(config["scenes"]),
            "events": tuple(config["events"]),
            "front_end": FRONT_ENDS[config["front_end"]["name"]],
        }
    )
    _check_weights(bundle, flat, directory)
    digest = _metadata(content[WEIGHTS]).get(DIGEST)
    if digest and digest != hashlib.sha256(content[CONFIG]).hexdigest():
        raise InputError(
            f"{path} is not the one that {WEIGHTS} was saved with: put that back, or change the "
            "bundle from Python and save it (dataclasses.replace)"
        )
    return dataclasses.replace(bundle, variables=unflatten_dict(flat, sep="/"))


def _checked(config: Any, path: Path) -> dict[str, Any]:
    """What was read from config.json with all fields of _FIELDS; InputError names a wrong one."""
    where = f"{path}: "
    schema.check(config, {"format": int}, where, others=True)
    config = _ADDED_LATER | config
    schema.check(config, _FIELDS, where, others=True)
    own = _OF_A_MODEL.get(config["model"]["name"], {})
    schema.check(config["model"], own, where, "model.", others=True)
    found = config["front_end"]
    front_end = FRONT_ENDS.get(found["name"])
    if not front_end or dataclasses.asdict(front_end) != _FRONT_END_DEFAULTS | found:
        raise InputError(f"{where}this version can't reproduce the front end {found}")
    for field, (least, most) in RANGES.items():
        if not least <= config[field] <= most:
            raise InputError(f"{where}{field}={config[field]} is not from {least:g} to {most:g}")
    if config["pad"] not in ("zero", "repeat"):
        raise InputError(f'{where}pad={config["pad"]!r} is neither "zero" nor "repeat"')
    for field in ("scenes", "events"):
        names = config[field]
        if not all(isinstance(name, str) for name in names):
            raise InputError(f"{where}{field} is no list of names: {str(names)[:60]}")
        if len(set(names)) < len(names):
            twice = sorted(name for name in set(names) if names.count(name) > 1)
            raise InputError(f"{where}{field} names {twice[0]!r} twice")
    if not config["scenes"] and config["model"]["name"] != "pann":
        raise InputError(f"{where}scenes is empty, and only a PANN knows none")
    return config


def is_bundle(directory: Path) -> bool:
    """Whether a directory holds a bundle's two files."""
    return all(os.path.isfile(directory / name) for name in (CONFIG, WEIGHTS))


def _check_weights(bundle: Bundle, flat: Mapping[str, np.ndarray], directory: Path) -> None:
    """InputError unless names, shapes and types of the weights are those of the model."""
    path = directory / WEIGHTS
    if bundle.model["name"] == "ergl" and bundle.model["gcn"]["layers"] > len(flat):
        layers = bundle.model["gcn"]["layers"]  # before that many are traced
        raise InputError(f"{directory / CONFIG}: model.gcn.layers={layers}, but {path} has fewer")
    frames = bundle.front_end.num_frames(bundle.clip_seconds)
    clip = jax.ShapeDtypeStruct((1, frames, bundle.front_end.n_mels), np.float32)
    try:
        model = bundle.build()
        wanted = flatten_dict(
            jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), clip), sep="/"
        )
    except Exception as error:  # an InputError that names the field, or whatever tracing says
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{directory / CONFIG}: no model that can be built: {reason}") from error
    if missing := sorted(wanted.keys() ^ flat.keys()):
        raise InputError(f"{path}: {missing[0]} is missing from the weights or the model")
    for name, leaf in wanted.items():
        found = flat[name]
        if found.shape != leaf.shape or found.dtype != leaf.dtype:
            raise InputError(
                f"{path}: {name} is {found.dtype} {found.shape}, the model has {leaf.dtype} "
                f"{leaf.shape}"
            )


def _metadata(weights: bytes) -> dict[str, str]:
    """What a .safetensors file, which has been read, says of itself."""
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    return header.get("__metadata__", {})
