"""PANNs' published checkpoints (.pth) to bundles. The only file that knows PyTorch.

A checkpoint is read without running what it may hold as code, and nothing of it is left over: each
tensor is used, checked against the front end, or named as ignored.
"""

import dataclasses
import functools
import math
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import librosa
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

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


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A published PANN: its file in RECORD, and what it is."""

    file: str
    md5: str
    architecture: str
    front_end: str


CHECKPOINTS = {
    "Cnn14_16k": Checkpoint(
        "Cnn14_16k_mAP=0.438.pth", "362fc5ff18f1d6ad2f6d464b45893f2c", "cnn14", "panns_16k"
    ),
    "Cnn14": Checkpoint(
        "Cnn14_mAP=0.431.pth", "541141fa2ee191a88f24a3219fff024e", "cnn14", "panns_32k"
    ),
    "Cnn10": Checkpoint(
        "Cnn10_mAP=0.380.pth", "bfb1f1f9968938fa8ef4012b8471f5f6", "cnn10", "panns_32k"
    ),
    "Cnn6": Checkpoint(
        "Cnn6_mAP=0.343.pth", "e25e26b84585b14c7754c91e48efc9be", "cnn6", "panns_32k"
    ),
}

REAL = "spectrogram_extractor.stft.conv_real.weight"  # (n_fft // 2 + 1, 1, n_fft)
IMAGINARY = "spectrogram_extractor.stft.conv_imag.weight"
MEL = "logmel_extractor.melW"  # (n_fft // 2 + 1, M)
COUNTER = ".num_batches_tracked"  # BatchNorm's, of use in training alone
FIRST = "conv_block1.conv1.weight"  # (64, 1, side, side); every PANN here has it
TOLERANCE = 1e-4  # of the greatest entry: a sample rate or window that is wrong differs by 1e-3

ZIP, LEGACY = b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # PyTorch's two formats


@dataclasses.dataclass(frozen=True)
class Port:
    """A ported checkpoint, and what became of each of its tensors."""

    bundle: Bundle
    tensors: list[tuple[str, tuple[int, ...], str]]  # name, shape, what became of it


def port(path: Path, *, name: str | None = None) -> Port:
    """The PANN in a checkpoint of the original code, of any of CHECKPOINTS' architectures.

    Which front end it wants is found by its own STFT kernels and mel filters. These don't tell the
    hop: it is that of the front end whose window and filters they are. Nor can tensors tell Cnn14
    from its variants that pool time otherwise (Cnn14_DecisionLevelMax): the MD5 can.

    Args:
      path: the .pth, in PyTorch's zip format or the one before.
      name: the one of CHECKPOINTS that it must be; by default whichever it is.

    Raises:
      InputError: PyTorch is missing, or the file is no checkpoint, would run code, is truncated, no
        PANN, another than `name`, made with another front end than ours, or a tensor is missing,
        misshapen or unexpected.
    """
    if name is not None and name not in CHECKPOINTS:
        raise InputError(f"no PANN {name!r}: choose one of {', '.join(CHECKPOINTS)}")
    path = Path(path)
    state = _tensors(_load(path), path)
    architecture, divisor = _architecture(state, path)
    if name is not None and architecture != CHECKPOINTS[name].architecture:
        raise InputError(f"{path} is not {name}: its tensors are those of {architecture}")
    shapes = {tensor: tuple(x.shape) for tensor, x in state.items()}
    config = {
        "name": "pann",
        "compute_dtype": "float32",
        "encoder": {"architecture": architecture, "width_divisor": divisor, "dropout": 0.2},
        "dropout": 0.5,
    }
    ours = _variables(config)
    _check_tensors(shapes, ours, path, architecture)
    front_end = _front_end(state, path)
    if name is not None and front_end.name != CHECKPOINTS[name].front_end:
        raise InputError(
            f"{path} is not {name}: it was made with front end {front_end.name}, not "
            f"{CHECKPOINTS[name].front_end}"
        )
    became = dict.fromkeys((REAL, IMAGINARY, MEL), f"checked: {front_end.name}")
    became |= {tensor: "ignored" for tensor in shapes if tensor.endswith(COUNTER)}
    flat = {}
    for variable in ours:
        tensor = _name_in_checkpoint(variable)
        # PyTorch's running variance is the unbiased one. It is taken as it is: evaluation divides
        # by it there as here.
        flat[variable] = np.ascontiguousarray(_to_ours(state.pop(tensor)))
        became[tensor] = "/".join(variable)
    md5 = file_md5(path)
    published = md5 in {checkpoint.md5 for checkpoint in CHECKPOINTS.values()}
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
    return Port(bundle, [(tensor, shape, became[tensor]) for tensor, shape in shapes.items()])


def _load(path: Path) -> Any:
    """What a .pth holds, by a reader that calls nothing but what makes tensors and arrays."""
    try:
        import torch
    except ImportError as error:
        raise InputError('reading a .pth needs PyTorch: pip install ".[port]"') from error
    try:
        with open(path, "rb") as file:
            head = file.read(len(LEGACY))
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from error
    if not head.startswith(ZIP) and head != LEGACY:
        raise InputError(f"{path} is not a PANN: not a file that PyTorch saved")
    truncated = f"{path} is truncated or damaged: get it again"
    if head.startswith(ZIP):
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.namelist()
        except Exception as error:  # its directory is at the end: where that fails, as below
            raise InputError(truncated) from error
        if not any(member.endswith("/data.pkl") for member in members):
            raise InputError(f"{path} is not a PANN: not a file that PyTorch saved")
    try:
        with torch.serialization.safe_globals([(_Ignored, name) for name in _NUMPY]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # where a damaged file fails is anyone's guess
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise InputError(
                f"{path} is refused: it asks for {found[1]}, and to read it would run code"
            ) from error
        raise InputError(truncated) from error


class _Ignored:
    """Stands where a pickle asks for a NumPy array, and drops what the array is made of.

    The samplers in PANNs' checkpoints hold arrays. Nothing here needs them, and NumPy's own
    unpickling is not proof against a file that was made to break it.
    """

    def __new__(cls, *_):
        return super().__new__(cls)

    def __init__(self, *_):
        pass

    def __setstate__(self, _):
        pass


# What the pickle of an array or a scalar calls, under NumPy 2's names and NumPy 1's.
_NUMPY = ["numpy.ndarray", "numpy.dtype"]
_NUMPY += [f"numpy.{core}.multiarray._reconstruct" for core in ("_core", "core")]
_NUMPY += [f"numpy.{core}.multiarray.scalar" for core in ("_core", "core")]


def _tensors(content: Any, path: Path) -> dict[str, np.ndarray]:
    """The entry 'model' as arrays that share its memory."""
    import torch

    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, Mapping) or FIRST not in model:
        raise InputError(f"{path} is not a PANN: it has no 'model' with {FIRST}")
    for name, value in model.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(f"{path} is not a PANN: its {name!r} is no tensor")
    return {name: tensor.detach().float().numpy() for name, tensor in model.items()}


def _architecture(state: Mapping[str, np.ndarray], path: Path) -> tuple[str, int]:
    """The architecture by its blocks, and by what its channels are divided (1 as published)."""
    blocks = max(int(found[1]) for name in state if (found := re.match(r"conv_block(\d+)\.", name)))
    deepest = f"conv_block{blocks}.conv2.weight"
    for name, spec in ARCHITECTURES.items():
        if len(spec.channels) == blocks and (spec.convolutions == 2) == (deepest in state):
            widest, channels = spec.channels[0], (*state[FIRST].shape, 0)[0]
            if not channels or widest % channels:
                raise InputError(f"{path}: {FIRST} is {state[FIRST].shape}, misshapen for {name}")
            return name, widest // channels
    raise InputError(
        f"{path} is not one of {', '.join(CHECKPOINTS)}: it has {blocks} convolutional blocks"
    )


def _variables(config: dict) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Shapes of all that the model of a `config.model` holds, by path."""
    model = registry.build(ModelConfig.from_saved(config), num_scenes=0, num_events=len(AUDIOSET))
    clip = jax.ShapeDtypeStruct((1, 64, 64), np.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), clip)
    return {path: leaf.shape for path, leaf in flatten_dict(variables).items()}


def _name_in_checkpoint(variable: tuple[str, ...]) -> str:
    """(params, encoder, ConvBlock_0, Conv_1, kernel) -> conv_block1.conv2.weight."""
    *module, leaf = variable[1:]
    if module[0] != "encoder":
        name = module[0]  # fc1, fc_audioset
    elif module[1] == "BatchNorm_0":
        name = "bn0"
    else:
        block, layer = (part.split("_") for part in module[1:])
        kind = {"Conv": "conv", "BatchNormReLU": "bn"}[layer[0]]
        name = f"conv_block{int(block[1]) + 1}.{kind}{int(layer[1]) + 1}"
    theirs = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    return f"{name}.{theirs.get(leaf, leaf)}"


def _to_ours(x: np.ndarray) -> np.ndarray:
    """Convolutions OIHW -> HWIO, dense layers (out, in) -> (in, out), vectors as they are."""
    return x.transpose(2, 3, 1, 0) if x.ndim == 4 else x.T


def _check_tensors(shapes, ours, path: Path, architecture: str) -> None:
    """InputError unless each of ours is there, of its shape, and nothing that nobody knows."""
    wanted = {}
    for variable, shape in ours.items():
        axes = (3, 2, 0, 1) if len(shape) == 4 else range(len(shape))[::-1]
        wanted[_name_in_checkpoint(variable)] = tuple(shape[axis] for axis in axes)
    for name in (*wanted, REAL, IMAGINARY, MEL):
        if name not in shapes:
            raise InputError(f"{path}: tensor {name} of {architecture} is missing")
    for name, shape in wanted.items():
        if shapes[name] != shape:
            raise InputError(f"{path}: tensor {name} is {shapes[name]}, {architecture} has {shape}")
    for name in shapes:
        if name not in wanted and name not in (REAL, IMAGINARY, MEL) and not name.endswith(COUNTER):
            raise InputError(f"{path}: tensor {name} is unexpected: {architecture} has none such")


def _front_end(state: Mapping[str, np.ndarray], path: Path) -> FrontEnd:
    """The front end whose window and mel filters the checkpoint holds; InputError if none is."""
    kernels, n_fft = state[REAL].shape, (0, *state[REAL].shape)[-1]
    bins = n_fft // 2 + 1
    if (
        n_fft < 2
        or kernels != (bins, 1, n_fft)
        or state[IMAGINARY].shape != kernels
        or state[MEL].shape[:1] != (bins,)
        or state[MEL].ndim != 2
    ):
        found = ", ".join(f"{name} {state[name].shape}" for name in (REAL, IMAGINARY, MEL))
        raise InputError(f"{path}: misshapen tensors, of an STFT and mel filters: {found}")
    known = [front_end for front_end in FRONT_ENDS.values() if not front_end.offset]  # in dB
    for front_end in known:
        if _has_window(state, window(front_end)) and _close(state[MEL], mel_filters(front_end)):
            return front_end
    raise InputError(
        f"{path} was made with {_description(state)}: no front end here does that, of "
        f"{', '.join(front_end.name for front_end in known)}"
    )


def _close(found: np.ndarray, expected: np.ndarray) -> bool:
    if found.shape != expected.shape:
        return False
    return bool(np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max())


def _has_window(state: Mapping[str, np.ndarray], w: np.ndarray) -> bool:
    """Whether the STFT kernels are w[t] cos(2 pi k t / N) and -w[t] sin(2 pi k t / N)."""
    n_fft = len(w)
    turns = np.outer(np.arange(n_fft // 2 + 1), np.arange(n_fft)) % n_fft / n_fft  # exact
    angle = 2 * math.pi * turns
    return _close(state[REAL], (w * np.cos(angle))[:, None]) and _close(
        state[IMAGINARY], (-w * np.sin(angle))[:, None]
    )


def _description(state: Mapping[str, np.ndarray]) -> str:
    """The window and the mel filters of a checkpoint in words, as far as they can be made out."""
    n_fft, bands = state[REAL].shape[-1], state[MEL].shape[-1]
    names = [
        name
        for name in ("hann", "hamming", "blackman")
        if _has_window(state, librosa.filters.get_window(name, n_fft, fftbins=True))
    ]
    mel = functools.partial(librosa.filters.mel, n_fft=n_fft, n_mels=bands)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa's, of combinations that nobody would choose
        ranges = [
            f"{rate} Hz, {fmin} to {fmax} Hz"
            for rate in (8000, 16000, 22050, 32000, 44100, 48000)
            for fmin in (0, 20, 50)
            for fmax in sorted({4000, 8000, 11025, 14000, 16000, rate // 2})
            if fmax <= rate // 2 and _close(state[MEL], mel(sr=rate, fmin=fmin, fmax=fmax).T)
        ]
    shape = f"{names[0]} window" if names else "window of no known kind"
    filters = f"filters of {ranges[0]}" if ranges else "filters of no known kind"
    return f"a {shape} of {n_fft} samples and {bands} mel {filters}"
