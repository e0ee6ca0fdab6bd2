"""A bundle: a trained model in a directory of `config.json` and `model.safetensors`.

Training writes it; inference needs nothing else from training. `config.json` has the
model's configuration, every setting of the front end, clip length and padding, names of scenes and
events, the data's licence, and versions. The weights store its SHA-256, so that an edited
`config.json` is refused.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import flax
import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load as load_weights
from safetensors.numpy import save as save_weights

import ergl_jax
from ergl_jax import hub, pretrained, registry
from ergl_jax import known as knowns
from ergl_jax.audio import FrontEnd
from ergl_jax.bundle_config import FORMAT, parse
from ergl_jax.config import ModelConfig
from ergl_jax.errors import InputError, warn
from ergl_jax.files import atomic_write, is_remote, locked, user_path, writing
from ergl_jax.known import Known

CONFIG, WEIGHTS = "config.json", "model.safetensors"
KNOWN = "known/"  # begins the names of these arrays among the weights
MIN_CALIBRATION = 10  # validation clips; fewer are too few to fit a temperature
DIGEST = "config_sha256"  # in the metadata of the weights; older bundles have none


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
      temperature: scene logits are divided by it; 1 if it wasn't fitted.
      calibration: what it was fitted to, such as "57 validation clips", so that probabilities are
        calibrated; "" if it wasn't.
      known: detects unknown sounds; None without enough validation clips.
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
    calibration: str = ""
    known: Known | None = None

    @property
    def about_probabilities(self) -> str:
        """Whether they are calibrated, in a sentence."""
        if not self.calibration:
            return (
                f"Probabilities are not calibrated: that takes {MIN_CALIBRATION} validation clips, "
                "some of them misclassified."
            )
        return (
            f"Probabilities are calibrated: logits are divided by a temperature of "
            f"{self.temperature:.3g}, fitted to {self.calibration}."
        )

    @property
    def about_known(self) -> str:
        """Whether it abstains from unknown sounds, in a sentence."""
        if self.known is None:
            return (
                "Unknown sounds are not detected: that takes a run with "
                f"{knowns.MIN_VALIDATION} validation clips or more."
            )
        return (
            f"The model abstains from recordings farther than {self.known.limit():.3g} from its "
            f"training clips (limit set on {len(self.known.distances)} validation clips)."
        )

    @property
    def clip_shape(self) -> tuple[int, int]:
        """(F, M), of a clip's features."""
        return self.front_end.shape(self.clip_seconds)

    def build(self) -> nn.Module:
        """The Flax module that `variables` belong to."""
        return registry.build(
            self.model,
            num_scenes=len(self.scenes),
            num_events=len(self.events),
            frame_seconds=self.front_end.frame_seconds,
        )

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
            "calibration": self.calibration,
            "versions": {
                "ergl_jax": ergl_jax.__version__,
                "jax": jax.__version__,
                "flax": flax.__version__,
            },
        }
        flat = flatten_dict(self.variables, sep="/")
        if self.known:
            flat |= {KNOWN + name: x for name, x in self.known.arrays().items()}
        flat = {name: np.ascontiguousarray(x) for name, x in flat.items()}
        text = (json.dumps(config, indent=2) + "\n").encode()
        weights = save_weights(flat, metadata={DIGEST: hashlib.sha256(text).hexdigest()})
        files = {WEIGHTS: weights, CONFIG: text}
        if is_remote(directory):  # a bucket cannot rename directories
            for name, content in files.items():
                with atomic_write(directory / name) as file:
                    file.write_bytes(content)
            return
        with writing(directory):
            directory.parent.mkdir(parents=True, exist_ok=True)
        with locked(directory.parent), writing(directory):  # others may write the same bundle
            try:
                shutil.rmtree(fresh, ignore_errors=True)
                fresh.mkdir()
                for name, content in files.items():
                    (fresh / name).write_bytes(content)
                if directory.exists():  # by renaming, so that no reader sees half of one
                    shutil.rmtree(old, ignore_errors=True)
                    os.replace(directory, old)
                os.replace(fresh, directory)
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
    if directory.exists():
        if not directory.is_dir():
            raise InputError(f"{directory} is a file: name another directory for the bundle")
        if strange := sorted({path.name for path in directory.iterdir()} - {CONFIG, WEIGHTS}):
            raise InputError(
                f"{directory} has {strange[0]} in it, which is no part of a bundle: move it away, "
                "or name another directory"
            )
    return directory


def load(directory: str | os.PathLike | None = None) -> Bundle:
    """The bundle in `directory`, or in the work directory of a finished run, `directory/bundle`.

    `directory` may be an address on the Hugging Face Hub, hf://OWNER/NAME or
    hf://OWNER/NAME@REVISION, or the name of a model that comes with the package, such as "esc10"
    (`ergl models` lists them); a bundle or run of that name in the current directory comes first.
    None: the model that the environment variable ERGL_MODEL names, else "esc10" of the package,
    with a note that lists its scenes.

    Raises InputError if a file is missing or damaged, this version cannot reproduce the front end,
    config.json or the weights do not belong together, a weight is not finite, or the Hub refuses.
    """
    if directory is None:
        return _default()
    found = locate(directory)
    shown = directory if hub.is_address(directory) else found
    path, weights_path = f"{shown}/{CONFIG}", f"{shown}/{WEIGHTS}"
    try:
        text, weights = (found / CONFIG).read_bytes(), (found / WEIGHTS).read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        name = WEIGHTS if (found / CONFIG).is_file() else CONFIG
        reason = f"it has no {name}" if missing else f"{name}: {error.strerror}"
        if not found.exists():
            reason = "there is no such directory"
        if missing and name == CONFIG:
            reason += f"; models that come with ergl_jax: {', '.join(pretrained.names())}"
        raise InputError(f"{shown} is not a bundle: {reason}") from error
    with _refusing(path):
        bundle = Bundle(**parse(text), variables={})
    with _refusing(f"{weights_path} is damaged"):
        flat = load_weights(weights)
    with _refusing(f"{weights_path} does not fit {CONFIG}"):
        named = {name for name in flat if name.startswith(KNOWN)}
        arrays = {name.removeprefix(KNOWN): flat.pop(name) for name in named}
        known = knowns.parse(arrays) if arrays else None
        _check_weights(bundle, flat)
    for name, x in flat.items():
        if not np.isfinite(x).all():
            raise InputError(
                f"{weights_path}: {name} has NaN or infinite values: its training diverged, or the "
                "file was changed; train or port again"
            )
    digest = _metadata(weights).get(DIGEST)
    if digest and digest != hashlib.sha256(text).hexdigest():
        raise InputError(
            f"{path} is not the one that {WEIGHTS} was saved with: restore it, or change the "
            "bundle from Python and save it (dataclasses.replace)"
        )
    return dataclasses.replace(bundle, variables=unflatten_dict(flat, sep="/"), known=known)


def locate(directory: str | os.PathLike) -> Path:
    """The directory with the two files of the bundle that `load` reads.

    Of an address on the Hub, the copy on this machine; the weights are downloaded only if its
    config.json is a bundle's: other models have files of these names too.
    """
    if hub.is_address(directory):
        address = os.fspath(directory)
        config = hub.fetch(address, CONFIG)
        with _refusing(f"{address}/{CONFIG} is not a bundle's"):
            parse(config.read_bytes())
        return hub.fetch(address, WEIGHTS, commit=config.parent.name).parent
    directory = pretrained.find(directory)
    return directory / "bundle" if is_bundle(directory / "bundle") else directory


def _default() -> Bundle:
    """The model of `load(None)`; errors name the environment variable that chose it."""
    named = pretrained.named()
    try:
        bundle = load(pretrained.default())
    except InputError as error:
        raise InputError(f"{pretrained.VARIABLE}={named}: {error}" if named else error) from error
    if not named:
        warn(
            f"no model is given, so {pretrained.DEFAULT} is used, which covers only "
            f"{len(bundle.scenes)} sounds: {', '.join(bundle.scenes)}",
            kind="note",
        )
    return bundle


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turns any error into an InputError; NumPy, Flax and JAX raise many kinds."""
    try:
        yield
    except Exception as error:
        raise InputError(f"{what}: {str(error).strip().partition(chr(10))[0]}") from error


def is_bundle(directory: Path) -> bool:
    """Whether a directory has a bundle's two files."""
    files = [directory / name for name in (CONFIG, WEIGHTS)]
    if is_remote(directory):
        return all(file.is_file() for file in files)
    return all(os.path.isfile(file) for file in files)  # False where it may not look


def _check_weights(bundle: Bundle, flat: Mapping[str, np.ndarray]) -> None:
    """ValueError unless names, shapes and types of the weights are those of the model."""
    if bundle.model.name == "ergl" and bundle.model.gcn.layers > len(flat):
        # Before that many layers are traced.
        raise ValueError(f"model.gcn.layers={bundle.model.gcn.layers}, but there are fewer weights")
    clip = jax.ShapeDtypeStruct((1, *bundle.clip_shape), np.float32)
    model = bundle.build()
    wanted = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), clip)

    def forms(leaves: Mapping) -> dict[str, str]:
        return {name: f"{x.dtype} {x.shape}" for name, x in leaves.items()}

    found, expected = forms(flat), forms(flatten_dict(wanted, sep="/"))
    for name in sorted(found.keys() | expected.keys()):
        theirs, ours = found.get(name, "missing"), expected.get(name, "no such weights")
        if theirs != ours:
            raise ValueError(f"{name} is {theirs}, the model has {ours}")


def _metadata(weights: bytes) -> dict[str, str]:
    """The metadata of a .safetensors file."""
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    return header.get("__metadata__", {})
