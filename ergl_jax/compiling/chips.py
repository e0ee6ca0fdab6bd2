"""TPUs and GPUs by name: published figures, and devices for compiling without the chip."""

import importlib.util
import math
import os
from dataclasses import dataclass, replace
from typing import Literal

import jax
from jax.experimental import topologies
from jax.experimental.compilation_cache import compilation_cache

from ergl_jax.errors import InputError


@dataclass(frozen=True)
class Gpu:
    """NVIDIA's published figures that XLA needs to compile for a GPU."""

    capability: tuple[int, int]
    cores: int  # streaming multiprocessors
    lanes: int  # float32 units in each
    threads: int  # maximum in each
    shared_memory: int  # bytes in each; from capability 8 on a block may have 1024 less
    cache: int  # bytes of L2
    clock: float  # GHz
    description: str


@dataclass(frozen=True)
class Chip:
    """Published figures of a chip, for the bounds.

    Attributes:
      tflops: 10^12 operations a second in bfloat16 (T4: float16).
      bandwidth: of its memory, in GB/s.
      memory: in GiB; of a TPU, what programs can use.
      links: to other chips of a slice or machine, all together in one direction, in GB/s.
      gpu: None for a TPU.
    """

    name: str
    tflops: float
    bandwidth: float
    memory: float
    links: float
    gpu: Gpu | None = None

    @property
    def usable_bytes(self) -> int:
        """Memory that a program may have: on a GPU the share that JAX reserves."""
        return int((_reserved_share() if self.gpu else 1.0) * self.memory * 2**30)


def _reserved_share() -> float:
    """The share of a GPU's memory that JAX reserves; InputError for a wrong variable."""
    for name in ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"):
        if text := os.environ.get(name):
            try:
                share = float(text)
            except ValueError:
                share = math.nan
            if not 0 < share <= 1:
                raise InputError(f"{name}={text}: must be above 0 and at most 1, such as 0.75")
            return share
    return 0.75


_HOPPER = {"cores": 132, "lanes": 128, "threads": 2048, "shared_memory": 233472, "cache": 52428800}
_H100 = Gpu((9, 0), **_HOPPER, clock=1.98, description="NVIDIA H100 80GB HBM3")
_H200 = Gpu((9, 0), **_HOPPER, clock=1.98, description="NVIDIA H200")
_A100 = Gpu((8, 0), 108, 64, 2048, 167936, 41943040, 1.41, "NVIDIA A100-SXM4-80GB")
_A100_40 = replace(_A100, description="NVIDIA A100-SXM4-40GB")
_L4 = Gpu((8, 9), 58, 128, 1536, 102400, 50331648, 2.04, "NVIDIA L4")
_T4 = Gpu((7, 5), 40, 64, 1024, 65536, 4194304, 1.59, "Tesla T4")
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 275, 1228, 30.75, 300),
        Chip("v5e", 197, 819, 15.75, 200),
        Chip("v5p", 459, 2765, 95.73, 600),
        Chip("v6e", 918, 1640, 31.24, 448),
        Chip("h100", 989, 3352, 79.1, 450, _H100),
        Chip("h200", 989, 4800, 140.4, 450, _H200),
        Chip("a100", 312, 2039, 79.2, 300, _A100),
        Chip("a100-40gb", 312, 1555, 39.4, 300, _A100_40),
        Chip("l4", 121, 300, 22.5, 32, _L4),
        Chip("t4", 65, 320, 14.6, 16, _T4),
    )
}


_LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_HOST_BOUNDS": "1,1,1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def open_topology(topology: str) -> tuple[Chip, list[jax.Device]]:
    """The chip and the devices of "v5e:2x2", "h100" or "h100:8", to compile for.

    Disables JAX's cache of compiled programs. Raises InputError for an unknown name or a missing
    compiler.
    """
    name, colon, shape = topology.partition(":")
    if name not in CHIPS:
        raise InputError(
            f"--topology={topology!r}: no chip {name!r}; choose one of {', '.join(CHIPS)}, such as "
            "v5e:2x2, v5p:2x2x1 or h100:8"
        )
    chip = CHIPS[name]
    if chip.gpu:
        _reserved_share()  # a wrong variable is reported before JAX reads it
    # JAX's cache can store programs for absent chips, but not load them.
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    axes = 1 if chip.gpu else 3 if name in ("v4", "v5p") else 2
    sides = shape.split("x") if colon else ["1"] * axes
    form = f"{name}:" + {1: "8", 2: "2x2", 3: "2x2x1"}[axes]
    if not all(side.isdecimal() and int(side) for side in sides) or len(sides) > axes:
        raise InputError(f"--topology={topology!r}: write it as {form}")
    try:
        devices = _gpus(chip, int(sides[0])) if chip.gpu else _tpus(name, [int(x) for x in sides])
    except InputError:
        raise
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"can't compile for --topology={topology!r}: {reason}; name one that can be rented, "
            f"such as {form}"
        ) from error
    return chip, devices


def has_compiler(platform: Literal["tpu", "cuda"]) -> bool:
    """Whether the library that compiles for TPUs, or for GPUs, is installed."""
    if platform == "tpu":
        return "TPU_LIBRARY_PATH" in os.environ or importlib.util.find_spec("libtpu") is not None
    if importlib.util.find_spec("jax_plugins") is None:
        return False
    plugins = ("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13")
    return any(importlib.util.find_spec(plugin) for plugin in plugins)


def _tpus(name: str, sides: list[int]) -> list[jax.Device]:
    if not has_compiler("tpu"):
        raise InputError(f'{name} needs a compiler for TPUs: pip install ".[tpu-compile]"')
    # Else libtpu queries TPU metadata, and aborts if another process has loaded it.
    for variable, value in _LIBTPU.items():
        os.environ.setdefault(variable, value)
    options: dict = {}
    if name == "v4":
        options["chip_config_name"] = "megacore"  # a device has both cores of its chip
    if max(sides) == 1:  # a part of a host
        options["chips_per_host_bounds"] = [1, 1, 1]
    found = topologies.get_topology_desc(
        platform="tpu", topology_name=f"{name}:{'x'.join(map(str, sides))}", **options
    )
    return list(found.devices)


def _gpus(chip: Chip, number: int) -> list[jax.Device]:
    if not has_compiler("cuda"):
        raise InputError(f'{chip.name} needs a compiler for GPUs: pip install ".[cuda-compile]"')
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # compile without using a local GPU
    found = topologies.get_topology_desc(
        platform="cuda", topology=f"1x1x{number}", target_config=_target(chip)
    )
    return list(found.devices)


def _target(chip: Chip) -> str:
    """A GPU as XLA's text of GpuTargetConfigProto."""
    gpu = chip.gpu
    assert gpu is not None
    device = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49152,
        "shared_memory_per_core": gpu.shared_memory,
        "threads_per_core_limit": gpu.threads,
        "core_count": gpu.cores,
        "fpus_per_core": gpu.lanes,
        "block_dim_limit_x": 2147483647,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "memory_bandwidth": int(chip.bandwidth * 1e9),
        "l2_cache_size": gpu.cache,
        "clock_rate_ghz": gpu.clock,
        "device_memory_size": int(chip.memory * 2**30),
        "shared_memory_per_block_optin": gpu.shared_memory
        - (1024 if gpu.capability >= (8, 0) else 0),
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
    }
    major, minor = gpu.capability
    fields = "\n".join(f"{name}: {value}" for name, value in device.items())
    return f"""gpu_device_info {{
      {fields}
      cuda_compute_capability {{ major: {major} minor: {minor} }}
    }}
    platform_name: "CUDA"
    dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
    runtime_version {{ major: 13 minor: 0 patch: 0 }}
    device_description_str: "{gpu.description}"
    """
