"""Finds a PANN's tensors in files of PyTorch, without running code from them.

The file is a .pth or .ckpt, in PyTorch's zip format or the older one, or a .safetensors. The
tensors may be anywhere in nested dicts and lists, such as in the entry 'model' of PANNs' own code
or the 'state_dict' of Lightning, and their names may have a prefix: 'module.' of DataParallel,
'base.' of a fine-tuned PANN, 'model.' of a Lightning module, or any other.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ergl_jax.errors import InputError
from ergl_jax.files import reading

# Every PANN here has one of these.
FIRST = "conv_block1.conv1.weight"  # (64, 1, side, side)
FIRST_OF_MOBILENET = "features.0.0.weight"  # (32, 1, 3, 3)
COUNTER = ".num_batches_tracked"  # BatchNorm's, only used in training


class Tensors(NamedTuple):
    """A PANN's tensors, and where in the file they are."""

    entry: str  # such as "state_dict"; "" for the file's own dict
    prefix: str  # of all names in the file, removed from those below
    arrays: dict[str, np.ndarray]  # float32
    rounding: dict[str, float]  # largest relative error of the type that each is stored in
    others: dict[str, tuple[int, ...]]  # shapes of tensors beside these, without the prefix


def read(path: Path) -> Tensors:
    """The PANN in a file.

    Raises InputError: PyTorch is missing, the file can't be read or would run code, it contains no
    PANN or several, or a tensor is not of finite floating-point numbers.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError('reading a checkpoint needs PyTorch: pip install ".[port]"') from error
    found = list(_places(_load(path), torch.Tensor))
    if not found:
        first = f"{FIRST} or {FIRST_OF_MOBILENET}"
        raise InputError(
            f"{path} is not a PANN that can be ported: it has no tensor {first}, with or without "
            "prefix"
        )
    if len(found) > 1:
        names = ", ".join(" ".join(filter(None, (place[0], place[2]))) for place in found)
        raise InputError(f"{path} contains several PANNs ({names}): save one in a file of its own")
    (entry, prefix, _, mapping), *_ = found
    result = Tensors(entry, prefix, {}, {}, {})
    for name, x in mapping.items():
        if not isinstance(name, str) or not isinstance(x, torch.Tensor):
            continue
        if not name.startswith(prefix):
            result.others[name] = tuple(x.shape)
            continue
        floats = x.is_floating_point()
        if x.layout != torch.strided or x.is_meta or not (floats or name.endswith(COUNTER)):
            reason = "weights must be dense floating-point tensors: convert it and save again"
            raise InputError(f"{path}: tensor {name} is {x.dtype}, {x.layout}: {reason}")
        array = x.detach().float().numpy()
        if not np.isfinite(array).all():
            reason = "has NaN or infinite values: training diverged, take an earlier checkpoint"
            raise InputError(f"{path}: tensor {name} {reason}")
        short = name.removeprefix(prefix)
        result.arrays[short] = array
        result.rounding[short] = torch.finfo(x.dtype).eps / 2 if floats else 0.0
    return result


def _places(content: Any, kind: type) -> Iterator[tuple[str, str, str, Mapping]]:
    """Yields entry, prefix, first tensor's name and dict of each PANN in nested dicts and lists.

    Tensors are `kind`.
    """
    firsts = (FIRST, FIRST_OF_MOBILENET)
    waiting, seen = [("", content)], set()
    while waiting:
        entry, value = waiting.pop()
        if id(value) in seen or not isinstance(value, Mapping | list | tuple):
            continue
        seen.add(id(value))
        for name, x in value.items() if isinstance(value, Mapping) else enumerate(value):
            if isinstance(x, Mapping | list | tuple):
                waiting.append((f"{entry}.{name}" if entry else str(name), x))
            elif isinstance(x, kind):
                for first in firsts:
                    if f".{name}".endswith(f".{first}"):
                        yield entry, name.removesuffix(first), name, value


def _load(path: Path) -> Any:
    """The content of a file, by loaders that only make tensors and plain containers."""
    import safetensors.torch  # imports PyTorch, which only this program needs
    import torch

    with reading(path), path.open("rb") as file:
        start = file.read(9)
    try:
        if start[8:] == b"{":  # a .safetensors: the length of a header, and the header in JSON
            return safetensors.torch.load_file(path)
        with torch.serialization.safe_globals(_stand_ins(path)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch fails on a damaged file with any exception
        refused = re.search(r"GLOBAL (\S+)", str(error))
        what = "is damaged, truncated or not a PyTorch checkpoint: download or save it again"
        if refused:
            what = f"is refused: loading it would run code ({refused[1]}); if the file is yours, "
            what += "save only model.state_dict()"
        raise InputError(f"{path} {what}") from error


class _Ignored:
    """Replaces an unpickled object, ignoring its content and code.

    Checkpoints contain samplers, settings and the like, which nothing here needs; unpickling them
    is not safe against a malicious file.
    """

    def __new__(cls, *_):
        return super().__new__(cls)

    def __init__(self, *_):
        pass

    def __setstate__(self, _):
        pass


class _IgnoredDict:
    """As `_Ignored` for a subclass of dict, whose items PyTorch only puts into a dict."""

    def __new__(cls, *_):
        return {}


# What the pickle of an array or a scalar calls, under NumPy 2's names and NumPy 1's.
_NUMPY = ["numpy.ndarray", "numpy.dtype"]
_NUMPY += [
    f"numpy.{core}.multiarray.{function}"
    for core in ("_core", "core")
    for function in ("_reconstruct", "scalar")
]
# Settings, paths and states that training saves beside weights, by package. Others are refused:
# ignoring them would be safe too, but a file that names `eval` is suspect.
_PACKAGES = {"argparse", "collections", "datetime", "functools", "lightning", "lightning_fabric"}
_PACKAGES |= {"numpy", "omegaconf", "pathlib", "pytorch_lightning", "torch", "torchmetrics"}
_PACKAGES |= {"typing"}
_BUILTINS = {f"builtins.{name}" for name in ("bool", "float", "int", "list", "str", "tuple")}
_DICTS = ("AttributeDict", "defaultdict")


def _stand_ins(path: Path) -> list[tuple[type, str]]:
    """What PyTorch's loader makes of the names in a pickle that it does not know."""
    import torch

    names = set(_NUMPY)
    with contextlib.suppress(Exception):  # the older format, or damaged, which loading finds
        names |= set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    ignored = [name for name in names if name.split(".")[0] in _PACKAGES or name in _BUILTINS]
    made = [(_IgnoredDict if name.endswith(_DICTS) else _Ignored, name) for name in sorted(ignored)]
    return [*made, (dict, "builtins.dict")]
