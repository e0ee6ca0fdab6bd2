"""Converts PANNs of PyTorch, published or fine-tuned, to bundles.

Every tensor of a checkpoint is either used, compared with the front end, or reported as ignored or
left out.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import panns_files
from flax.traverse_util import flatten_dict, unflatten_dict
from panns_files import COUNTER, FIRST

from ergl_jax import registry
from ergl_jax.audio import FRONT_ENDS, FrontEnd
from ergl_jax.audio.mel import mel_filters, window
from ergl_jax.bundle import Bundle
from ergl_jax.config import ModelConfig
from ergl_jax.downloads import file_md5
from ergl_jax.errors import InputError
from ergl_jax.labels import AUDIOSET
from ergl_jax.models.panns import ARCHITECTURES

RECORD = "https://zenodo.org/records/3987831"
LICENCE = f"CC BY 4.0, Q. Kong et al., {RECORD}"
CLIP_SECONDS = 10.0  # AudioSet's clips


class Checkpoint(NamedTuple):
    """A published PANN: its file in RECORD, and what it is."""

    file: str
    md5: str
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
    "Cnn10": Checkpoint("Cnn10_mAP=0.380.pth", "bfb1f1f9968938fa8ef4012b8471f5f6",
                        "cnn10", "", "panns_32k"),
    "Cnn6": Checkpoint("Cnn6_mAP=0.343.pth", "e25e26b84585b14c7754c91e48efc9be",
                       "cnn6", "", "panns_32k"),
}
# fmt: on

REAL = "spectrogram_extractor.stft.conv_real.weight"  # (n_fft // 2 + 1, 1, n_fft)
IMAGINARY = "spectrogram_extractor.stft.conv_imag.weight"
MEL = "logmel_extractor.melW"  # (n_fft // 2 + 1, M)
ATTENTION = "att_block."  # of Cnn14_DecisionLevelAtt
UNUSED = (f"{ATTENTION}bn_att.",)  # tensors that PANNs' code makes, but computes nothing with
HEAD = f"; only PANNs with AudioSet's head of {len(AUDIOSET)} events, and no other, can be ported"
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
    Cnn14: it is identified by `name`, the MD5, or a file name that begins with its own.

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
    architecture, divisor = _architecture(shapes, path)
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
    if problems := _problems(shapes, ours):
        raise InputError(f"{path} does not fit {form}: {problems}")
    front_end = _front_end(found, path)
    if name is not None:
        wanted = CHECKPOINTS[name]
        same = (architecture, variant, front_end.name) == wanted[2:]
        if not same or (published or name) != name:
            what = published or f"{form} with the front end {front_end.name}"
            raise InputError(f"{path} is not {name}, but {what}")
    became = dict.fromkeys((REAL, IMAGINARY, MEL), f"checked: {front_end.name}")
    became |= {tensor: "ignored" for tensor in shapes if _is_unused(tensor)}
    flat = {}
    for variable in ours:
        tensor = _name_in_checkpoint(variable)
        # Convolutions OIHW -> HWIO, dense layers (out, in) -> (in, out); those of attention are
        # (out, in, 1). PyTorch's running variance is unbiased, but its evaluation divides by it as
        # ours does: it is kept.
        x = state.pop(tensor)
        x = x.transpose(2, 3, 1, 0) if x.ndim == 4 else x.squeeze(-1).T if x.ndim == 3 else x.T
        flat[variable] = np.ascontiguousarray(x)
        became[tensor] = "/".join(variable)
    bundle = Bundle(
        model=ModelConfig.from_saved(config),
        variables=unflatten_dict(flat),
        scenes=(),
        events=AUDIOSET,
        front_end=front_end,
        clip_seconds=CLIP_SECONDS,
        pad="zero",
        licence=LICENCE if published else "unknown: not a file of the published PANNs",
        dataset="AudioSet",
        source=f"{path.name}, MD5 {md5}",
    )
    rows = [(found.prefix + tensor, shape, became[tensor]) for tensor, shape in shapes.items()]
    rows += [(tensor, shape, "left out") for tensor, shape in found.others.items()]
    return Port(bundle, rows, found.entry, found.prefix, tuple(found.others))


def _architecture(shapes: Mapping[str, tuple], path: Path) -> tuple[str, int]:
    """The architecture, and the number that its published channels are divided by."""
    blocks = max(int(x[1]) for name in shapes if (x := re.match(r"conv_block(\d+)\.", name)))
    deepest = f"conv_block{blocks}.conv2.weight"
    for name, spec in ARCHITECTURES.items():
        if len(spec.channels) == blocks and (spec.convolutions == 2) == (deepest in shapes):
            channels = (*shapes[FIRST], 1)[0]
            return name, max(1, spec.channels[0] // max(1, channels))
    known = ", ".join(CHECKPOINTS)
    raise InputError(f"{path} is not one of {known}: it has {blocks} convolutional blocks")


def _variant(likely: str, architecture: str, shapes: Mapping[str, tuple]) -> str:
    """model.variant of a checkpoint that is likely one of CHECKPOINTS, or any."""
    if any(tensor.startswith(ATTENTION) for tensor in shapes):
        return "decision_level_att"
    found = CHECKPOINTS.get(likely)
    return found.variant if found and found.architecture == architecture else ""


def _is_unused(tensor: str) -> bool:
    return tensor.endswith(COUNTER) or tensor.startswith(UNUSED)


def _variables(config: dict) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Shapes of the model's variables, by path."""
    model = registry.build(ModelConfig.from_saved(config), num_scenes=0, num_events=len(AUDIOSET))
    clip = jax.ShapeDtypeStruct((1, 64, 64), np.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), clip)
    return {path: leaf.shape for path, leaf in flatten_dict(variables).items()}


def _name_in_checkpoint(variable: tuple[str, ...]) -> str:
    """(params, encoder, ConvBlock_0, Conv_1, kernel) -> conv_block1.conv2.weight."""
    *module, leaf = variable[1:]
    if module[0] in ("att", "cla"):
        name = ATTENTION + module[0]
    elif module[0] != "encoder":
        name = module[0]  # fc1, fc_audioset
    elif module[1] == "BatchNorm_0":
        name = "bn0"
    else:
        block, layer = (part.split("_") for part in module[1:])
        kind = {"Conv": "conv", "BatchNormReLU": "bn"}[layer[0]]
        name = f"conv_block{int(block[1]) + 1}.{kind}{int(layer[1]) + 1}"
    theirs = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    return f"{name}.{theirs.get(leaf, leaf)}"


def _problems(shapes: Mapping[str, tuple], ours: Mapping[tuple[str, ...], tuple]) -> str:
    """What is wrong with a checkpoint's tensors, in a line: missing, misshapen or unexpected."""
    n_fft = max(2, (0, *shapes.get(REAL, ()))[-1])
    bins, bands = n_fft // 2 + 1, (0, *shapes.get(MEL, ()))[-1]
    wanted = {REAL: (bins, 1, n_fft), IMAGINARY: (bins, 1, n_fft), MEL: (bins, bands)}
    for variable, shape in ours.items():
        axes = (3, 2, 0, 1) if len(shape) == 4 else range(len(shape))[::-1]
        name = _name_in_checkpoint(variable)
        pointwise = (1,) if name.startswith(ATTENTION) and len(shape) == 2 else ()
        wanted[name] = (*(shape[axis] for axis in axes), *pointwise)
    missing = [name for name in wanted if name not in shapes]
    unexpected = [name for name in shapes if name not in wanted and not _is_unused(name)]
    misshapen = [
        f"{name} {shapes[name]} instead of {shape}"
        for name, shape in wanted.items()
        if shapes.get(name, shape) != shape
    ]
    wrong = {"missing": missing, "of another shape": misshapen, "unexpected": unexpected}
    text = "; ".join(f"{kind}: {_listed(names)}" for kind, names in wrong.items() if names)
    head = unexpected or any(x.startswith(("fc_", ATTENTION)) for x in missing + misshapen)
    return text + (HEAD if head else "")


def _listed(names: list[str], most: int = 4) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _front_end(found: panns_files.Tensors, path: Path) -> FrontEnd:
    """The front end with the checkpoint's window and mel filters; InputError if there is none."""
    known = [front_end for front_end in FRONT_ENDS.values() if not front_end.offset]  # in dB
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
