"""Converts PANNs of PyTorch, published or fine-tuned, to bundles.

Every tensor of a checkpoint is either used, compared with the front end, or reported as ignored or
left out.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import panns_files
import panns_tensors
from flax.traverse_util import flatten_dict, unflatten_dict
from panns_tensors import ATTENTION, IMAGINARY, MEL, REAL

from ergl_jax import registry
from ergl_jax.audio import FRONT_ENDS, FrontEnd
from ergl_jax.audio.mel import mel_filters, window
from ergl_jax.bundle import Bundle
from ergl_jax.config import ModelConfig
from ergl_jax.downloads import file_md5
from ergl_jax.errors import InputError
from ergl_jax.labels import AUDIOSET
from ergl_jax.models.wavegram import HOP

RECORD = "https://zenodo.org/records/3987831"
LICENCE = f"CC BY 4.0, Q. Kong et al., {RECORD}"
CLIP_SECONDS = 10.0  # AudioSet's clips
WAVEGRAM = "wavegram_logmel_cnn14"


class Checkpoint(NamedTuple):
    """A published PANN: its file in RECORD, and what it is."""

    file: str
    md5: str  # "" if it is not known
    architecture: str
    variant: str  # model.variant
    front_end: str


# fmt: off
CHECKPOINTS = {
    "Cnn14_16k": Checkpoint("Cnn14_16k_mAP=0.438.pth", "362fc5ff18f1d6ad2f6d464b45893f2c",
                            "cnn14", "", "panns_16k"),
    "Cnn14": Checkpoint("Cnn14_mAP=0.431.pth", "541141fa2ee191a88f24a3219fff024e",
                        "cnn14", "", "panns_32k"),
    "Cnn14_DecisionLevelMax": Checkpoint(
        "Cnn14_DecisionLevelMax_mAP=0.385.pth", "70539c43c18b6a289b3199c503a82c5a",
        "cnn14", "decision_level_max", "panns_32k"),
    "Cnn14_DecisionLevelAtt": Checkpoint(
        "Cnn14_DecisionLevelAtt_mAP=0.425.pth", "c8281ca2b9967244b91d557aa941e8ca",
        "cnn14", "decision_level_att", "panns_32k"),
    "Wavegram_Logmel_Cnn14": Checkpoint(
        "Wavegram_Logmel_Cnn14_mAP=0.439.pth", "17fa9ab65af3c0eb5ffbc5f65552c4e1",
        "wavegram_logmel_cnn14", "", "panns_wavegram"),
    "Cnn14_8k": Checkpoint("Cnn14_8k_mAP=0.416.pth", "", "cnn14", "", "panns_8k"),
    "ResNet38": Checkpoint("ResNet38_mAP=0.434.pth", "bf12f36aaabac4e0855e22d3c3239c1b",
                           "resnet38", "", "panns_32k"),
    "ResNet22": Checkpoint("ResNet22_mAP=0.430.pth", "cf36d413096793c4e15dc752a3abd599",
                           "resnet22", "", "panns_32k"),
    "MobileNetV1": Checkpoint("MobileNetV1_mAP=0.389.pth", "a419303e1c88aa1b9d2ac3811563d371",
                              "mobilenetv1", "", "panns_32k"),
    "Cnn10": Checkpoint("Cnn10_mAP=0.380.pth", "bfb1f1f9968938fa8ef4012b8471f5f6",
                        "cnn10", "", "panns_32k"),
    "Cnn6": Checkpoint("Cnn6_mAP=0.343.pth", "e25e26b84585b14c7754c91e48efc9be",
                       "cnn6", "", "panns_32k"),
}
# fmt: on

TOLERANCE = 1e-4  # of the largest entry; another sample rate or window differs by 1e-3


@dataclasses.dataclass(frozen=True)
class Port:
    """A converted checkpoint, and how each of its tensors was used."""

    bundle: Bundle
    tensors: list[tuple[str, tuple[int, ...], str]]  # name in the file, shape, use
    entry: str  # of the file that has the tensors; "" for the file itself
    prefix: str  # removed from their names
    left_out: tuple[str, ...]  # names of tensors beside the PANN's


def port(path: Path, *, name: str | None = None) -> Port:
    """Converts a checkpoint of any architecture in CHECKPOINTS, wrapped in any way (panns_files).

    The front end is identified by the checkpoint's STFT kernels and mel filters; the hop, which
    they do not determine, is that front end's. The tensors of Cnn14_DecisionLevelMax are those of
    Cnn14: it is identified by `name`, the MD5, or the file's name.

    Args:
      path: a .pth, .ckpt or .safetensors.
      name: the one of CHECKPOINTS that it must be; default any.

    Raises:
      InputError: PyTorch is missing, or the file can't be read, would run code, is no PANN or not
        `name`, has no known front end, or a tensor is missing, misshapen, unexpected or not finite.
    """
    path = Path(path)
    found = panns_files.read(path)
    state = found.arrays
    shapes = {tensor: tuple(x.shape) for tensor, x in state.items()}
    architecture, divisor = panns_tensors.architecture(shapes, path)
    md5 = file_md5(path)
    published = {x.md5: each for each, x in CHECKPOINTS.items()}.get(md5)
    likely = name or published or path.stem.partition("_mAP")[0]
    variant = _variant(likely, architecture, shapes)
    form = f"{architecture} {variant}".strip()
    config = {
        "name": "pann",
        "variant": variant,
        "compute_dtype": "float32",
        "encoder": {"architecture": architecture, "width_divisor": divisor, "dropout": 0.2},
        "dropout": 0.5,
    }
    ours = _variables(config)
    if wrong := panns_tensors.problems(shapes, ours):
        raise InputError(f"{path} does not fit {form}: {wrong}")
    front_end = _front_end(found, path, waveform=architecture == WAVEGRAM)
    if name is not None:
        wanted = CHECKPOINTS[name]
        same = (architecture, variant, front_end.name) == wanted[2:]
        if not same or (published or name) != name:
            what = published or f"{form} with the front end {front_end.name}"
            raise InputError(f"{path} is not {name}, but {what}")
    became = dict.fromkeys((REAL, IMAGINARY, MEL), f"checked: {front_end.name}")
    became |= {tensor: "ignored" for tensor in shapes if panns_tensors.is_unused(tensor)}
    flat = {}
    for variable in ours:
        tensor = panns_tensors.name_of(variable)
        flat[variable] = panns_tensors.to_flax(state.pop(tensor), variable)
        became[tensor] = "/".join(variable)
    bundle = Bundle(
        model=ModelConfig.from_saved(config),
        variables=unflatten_dict(flat),
        scenes=(),
        events=AUDIOSET,
        front_end=front_end,
        clip_seconds=CLIP_SECONDS,
        pad="zero",
        licence=LICENCE if published else "unknown: its MD5 is not that of a published PANN",
        dataset="AudioSet",
        source=f"{path.name}, MD5 {md5}",
    )
    rows = [(found.prefix + tensor, shape, became[tensor]) for tensor, shape in shapes.items()]
    rows += [(tensor, shape, "left out") for tensor, shape in found.others.items()]
    return Port(bundle, rows, found.entry, found.prefix, tuple(found.others))


def _variant(likely: str, architecture: str, shapes: Mapping[str, tuple]) -> str:
    """model.variant of a checkpoint that is likely one of CHECKPOINTS, or any."""
    if any(tensor.startswith(ATTENTION) for tensor in shapes):
        return "decision_level_att"
    found = CHECKPOINTS.get(likely)
    return found.variant if found and found.architecture == architecture else ""


def _variables(config: dict) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Shapes of the model's variables, by path."""
    model = registry.build(ModelConfig.from_saved(config), num_scenes=0, num_events=len(AUDIOSET))
    bins = 64 + HOP * (config["encoder"]["architecture"] == WAVEGRAM)
    clip = jax.ShapeDtypeStruct((1, 64, bins), np.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), clip)
    return {path: leaf.shape for path, leaf in flatten_dict(variables).items()}


def _front_end(found: panns_files.Tensors, path: Path, *, waveform: bool) -> FrontEnd:
    """The front end with the checkpoint's window and mel filters; InputError if there is none."""
    known = [x for x in FRONT_ENDS.values() if not x.offset and x.waveform == waveform]  # in dB
    for front_end in known:
        real, imaginary = _kernels(window(front_end))
        wanted = {REAL: real, IMAGINARY: imaginary, MEL: mel_filters(front_end)}
        if all(_close(found.arrays[x], wanted[x], found.rounding[x]) for x in wanted):
            return front_end
    length, bands = (found.arrays[x].shape[-1] for x in (REAL, MEL))
    raise InputError(
        f"{path}: its window of {length} samples and its {bands} mel "
        f"filters are those of no front end, of {', '.join(each.name for each in known)}"
    )


def _close(found: np.ndarray, expected: np.ndarray, rounding: float) -> bool:
    """Equal up to TOLERANCE, and the relative error `rounding` of the type that was stored."""
    if found.shape != expected.shape:
        return False
    size = np.abs(expected)
    return bool((np.abs(found - expected) <= TOLERANCE * size.max() + rounding * size).all())


def _kernels(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The STFT's kernels (K, 1, N) of a window: w[t] cos(2 pi k t / N), -w[t] sin(2 pi k t / N)."""
    n_fft = len(w)
    turns = np.outer(np.arange(n_fft // 2 + 1), np.arange(n_fft)) % n_fft / n_fft  # exact
    kernels = w * np.exp(-2j * math.pi * turns)
    return kernels.real[:, None], kernels.imag[:, None]
