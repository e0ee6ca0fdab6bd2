"""Process settings for fast XLA on CPU (docs/performance.md).

Imports nothing slow: huge pages must be set before slow imports, devices before JAX is used.
"""

import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

VARIABLE, VALUE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
CGROUP = Path("/sys/fs/cgroup/cpu.max")  # "max 100000", or microseconds of each period
MAX_DEVICES = 8  # each has a copy of the weights
MIN_CLIPS = 4  # per device; below, matrix products get narrow and slow
# The operations that XLA gives to YNNPACK; by default single convolutions too.
YNNPACK = "--xla_cpu_experimental_ynn_fusion_type=reduce,individual_dot"
# Keeps jax.lax.optimization_barrier until the fusion pass; by default it is dropped before.
BARRIERS = "--xla_disable_hlo_passes=cse_barrier_expander"
JAXLIBS = ("0.10.", "0.12.")  # tested with both flags; XLA aborts on unknown flags


def use_huge_pages() -> None:
    """Restarts this program with a malloc that requests huge pages from Linux.

    XLA allocates its working memory anew at each call, in pages of 4 KiB, or of 2 MiB if malloc
    requests them. glibc reads that setting from the environment at the start of a program only.
    Arguments and process id stay. Does nothing if GLIBC_TUNABLES is set, on other systems, or if
    the program was not started as `python FILE` (-c, -m and standard input can't be restarted).
    """
    if sys.platform != "linux" or VARIABLE in os.environ or not _is_script():
        return
    sys.stdout.flush()
    os.environ[VARIABLE] = VALUE
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except OSError:  # then with small pages
        del os.environ[VARIABLE]


def _is_script() -> bool:
    """Whether the command is `python [options] FILE arguments`."""
    options = sys.orig_argv[1 : -len(sys.argv)]
    return (
        sys.orig_argv[-len(sys.argv) :] == sys.argv
        and sys.argv[0] != "-"
        and not any(option in ("-c", "-m") for option in options)
        and bool(sys.executable)
    )


def use_cores(batch_size: int) -> int:
    """Divides JAX's CPU into as many devices as can share a batch; returns their number.

    XLA runs convolutions of few channels on one core, so a single device leaves the others idle.
    The number divides `batch_size` into at least MIN_CLIPS clips each, and is at most the number of
    cores available to this process. Does nothing, and returns 1, if the environment sets the number
    or JAX has its devices already. GPUs and TPUs are not affected.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "JAX_NUM_CPU_DEVICES" in os.environ or "xla_force_host_platform_device_count" in flags:
        return 1
    import jax  # not above: slow

    limit = min(_cores(), MAX_DEVICES, batch_size // MIN_CLIPS)
    devices = next((k for k in range(limit, 1, -1) if batch_size % k == 0), 1)
    try:
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError:  # too late
        return 1
    if devices == 1:
        use_threaded_convolutions()
    return devices


def use_threaded_convolutions() -> None:
    """Makes XLA compute convolutions itself, which a single device runs on all cores.

    By default YNNPACK computes them, mostly on one core: better only with a device per core. Call
    it before JAX is used. Does nothing if XLA_FLAGS mention YNNPACK or name a file, and with
    untested versions of jaxlib.
    """
    _add_flag(YNNPACK, unless="ynn_fusion_type")


def use_barriers() -> None:
    """Makes XLA compute BatchNorm and ReLU before the transposition in a convolution's gradient.

    Without, it recomputes them element by element in the transposed order, which is slower. For
    training; call it before JAX is used. Does nothing if XLA_FLAGS choose passes or name a file, if
    JAX may use a GPU or TPU, and with untested versions of jaxlib.
    """
    if _has_only_cpu():
        _add_flag(BARRIERS, unless="hlo_passes")  # XLA aborts if passes are chosen and disabled


def _add_flag(flag: str, *, unless: str) -> None:
    """Adds a flag to XLA_FLAGS unless they contain the text `unless` or name a file."""
    flags = os.environ.get("XLA_FLAGS", "").strip()
    is_file = flags and not flags.startswith("-")
    tested = importlib.metadata.version("jaxlib").startswith(JAXLIBS)
    if tested and not is_file and unless not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()


def _has_only_cpu() -> bool:
    """Whether JAX can use no other platform than a CPU."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return True
    packages = ("jax_plugins", "libtpu")  # where JAX looks for GPUs and TPUs
    found = any(importlib.util.find_spec(name) for name in packages)
    return not found and not importlib.metadata.entry_points(group="jax_plugins")


def _cores() -> int:
    """Cores that this process may use at once, by its affinity and its cgroup's quota."""
    linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    try:
        quota, period = CGROUP.read_text(encoding="ascii").split()
        return min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup of version 2, or "max": no quota
        return cores
