"""The tensors of PANNs' checkpoints: which architecture they make up, and our variables' names.

Tensors are in PyTorch's layouts, by the names of PANNs' code.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from panns_files import COUNTER, FIRST, FIRST_OF_MOBILENET

from ergl_jax.errors import InputError
from ergl_jax.labels import AUDIOSET
from ergl_jax.models.encoders import ENCODERS
from ergl_jax.models.mobilenet import MobileNetEncoder
from ergl_jax.models.panns import ARCHITECTURES
from ergl_jax.models.resnet import ResNetEncoder

REAL = "spectrogram_extractor.stft.conv_real.weight"  # (n_fft // 2 + 1, 1, n_fft)
IMAGINARY = "spectrogram_extractor.stft.conv_imag.weight"
MEL = "logmel_extractor.melW"  # (n_fft // 2 + 1, M)
ATTENTION = "att_block."  # of Cnn14_DecisionLevelAtt
UNUSED = (f"{ATTENTION}bn_att.",)  # tensors that PANNs' code makes, but computes nothing with
HEAD = f"; only PANNs with AudioSet's head of {len(AUDIOSET)} events, and no other, can be ported"


def _numbered(name: str) -> Callable[[re.Match], str]:
    return lambda match: f"{name}{int(match[1]) + 1}"


# A variable's path becomes its tensor's name by these substitutions, one after the other.
_SUBSTITUTIONS: tuple[tuple[str, str | Callable[[re.Match], str]], ...] = (
    (r"^encoder/BatchNorm_0", "bn0"),
    (r"^encoder/", ""),
    (r"^(att|cla)/", rf"{ATTENTION}\1/"),
    # ResNets
    (r"^after/", "conv_block_after1/"),
    (r"^layer(\d)_(\d+)/", r"resnet.layer\1.\2/"),
    (r"shortcut_norm", "downsample.2"),
    (r"shortcut", "downsample.1"),
    (r"BatchNorm_0", "bn2"),
    # MobileNetV1
    (r"^features_(\d+)/(Conv_0|depthwise)", r"features.\1.0"),
    (r"^features_(\d+)/BatchNormReLU_0", r"features.\1.2"),
    (r"^features_(\d+)/pointwise", r"features.\1.4"),
    (r"^features_(\d+)/BatchNormReLU_1", r"features.\1.5"),
    # All
    (r"ConvBlock_(\d+)", _numbered("conv_block")),
    (r"Conv_(\d+)", _numbered("conv")),
    (r"BatchNormReLU_(\d+)", _numbered("bn")),
    (r"/(kernel|scale)$", "/weight"),
    (r"/(mean|var)$", r"/running_\1"),
    (r"/", "."),
)


def name_of(variable: tuple[str, ...]) -> str:
    """(params, encoder, ConvBlock_0, Conv_1, kernel) -> conv_block1.conv2.weight."""
    name = "/".join(variable[1:])
    for pattern, replacement in _SUBSTITUTIONS:
        name = re.sub(pattern, replacement, name)
    return name


def to_flax(x: np.ndarray, variable: tuple[str, ...]) -> np.ndarray:
    """Convolutions OIHW -> HWIO or OIL -> LIO; dense layers (out, in) or (out, in, 1) -> (in, out).

    PyTorch's running variance is unbiased, but its evaluation divides by it as ours does: it is
    kept.
    """
    if x.ndim == 4:
        return np.ascontiguousarray(x.transpose(2, 3, 1, 0))
    return np.ascontiguousarray((x[..., 0] if x.ndim == 3 and _is_pointwise(variable) else x).T)


def _is_pointwise(variable: tuple[str, ...]) -> bool:
    """Whether it is a dense layer that PANNs' code has as a convolution of length 1."""
    return variable[1] in ("att", "cla")


def is_unused(tensor: str) -> bool:
    """Whether evaluation does without it."""
    return tensor.endswith(COUNTER) or tensor.startswith(UNUSED)


def architecture(shapes: Mapping[str, tuple], path: Path) -> tuple[str, int]:
    """The architecture, and the number that its published channels are divided by.

    Raises InputError, which names `path`, if it is another one.
    """
    if FIRST_OF_MOBILENET in shapes:
        return "mobilenetv1", _divisor(MobileNetEncoder.NARROWEST, shapes[FIRST_OF_MOBILENET])
    divisor = _divisor(ARCHITECTURES["cnn14"].channels[0], shapes[FIRST])
    if "pre_conv0.weight" in shapes:
        return "wavegram_logmel_cnn14", divisor
    if stages := _numbers(shapes, r"resnet\.layer(\d+)\."):
        sizes = [len(_numbers(shapes, rf"resnet\.layer{stage}\.(\d+)\.")) for stage in stages]
        for name, spec in ResNetEncoder.ARCHITECTURES.items():
            if list(spec) == sizes:
                return name, divisor
        raise InputError(f"{path} has residual blocks {sizes}, which is none of {_names()}")
    blocks = _numbers(shapes, r"conv_block(\d+)\.")[-1]
    deepest = f"conv_block{blocks}.conv2.weight"
    for name, spec in ARCHITECTURES.items():
        if len(spec.channels) == blocks and (spec.convolutions == 2) == (deepest in shapes):
            return name, divisor
    raise InputError(f"{path} has {blocks} convolutional blocks, which is none of {_names()}")


def _names() -> str:
    return ", ".join(ENCODERS)


def _numbers(shapes: Mapping[str, tuple], pattern: str) -> list[int]:
    return sorted({int(match[1]) for name in shapes if (match := re.match(pattern, name))})


def _divisor(published: int, shape: tuple) -> int:
    return max(1, published // max(1, (*shape, 1)[0]))


def problems(shapes: Mapping[str, tuple], ours: Mapping[tuple[str, ...], tuple]) -> str:
    """What is wrong with a checkpoint's tensors, in a line: missing, misshapen or unexpected.

    `ours` are the shapes of the model's variables, by path.
    """
    n_fft = max(2, (0, *shapes.get(REAL, ()))[-1])
    bins, bands = n_fft // 2 + 1, (0, *shapes.get(MEL, ()))[-1]
    wanted = {REAL: (bins, 1, n_fft), IMAGINARY: (bins, 1, n_fft), MEL: (bins, bands)}
    for variable, shape in ours.items():
        axes = (3, 2, 0, 1) if len(shape) == 4 else range(len(shape))[::-1]
        length = (1,) if _is_pointwise(variable) and len(shape) == 2 else ()
        wanted[name_of(variable)] = (*(shape[axis] for axis in axes), *length)
    missing = [name for name in wanted if name not in shapes]
    unexpected = [name for name in shapes if name not in wanted and not is_unused(name)]
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
