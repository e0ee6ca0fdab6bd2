"""What a program asks of Linux and JAX so that a CPU is well used (docs/performance.md).

Both must come early: huge pages before anything slow is imported, devices before JAX is used.
"""

import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

VARIABLE, VALUE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
CGROUP = Path("/sys/fs/cgroup/cpu.max")  # "max 100000", or microseconds of each period
MOST_DEVICES = 8  # each holds a copy of the weights
FEWEST_CLIPS = 4  # of a device's share: products get narrow and slow below
# Which operations XLA hands to YNNPACK; by default single convolutions too.
YNNPACK = "--xla_cpu_experimental_ynn_fusion_type=reduce,individual_dot"
# Lets jax.lax.optimization_barrier reach the pass that fuses operations; by default it is gone.
BARRIERS = "--xla_disable_hlo_passes=cse_barrier_expander"
JAXLIBS = ("0.10.", "0.12.")  # where both were tried: to a flag that XLA doesn't know, it aborts


def use_huge_pages() -> None:
    """Starts this program again with a malloc that asks Linux for huge pages.

    XLA takes its working memory anew at each call, and the kernel hands it out page by page: 4 KiB
    at a time, or 2 MiB where malloc asks. glibc reads that wish from the environment only, when a
    program starts. Arguments and process id stay. Does nothing where GLIBC_TUNABLES is already set,
    to whatever value, elsewhere than on Linux, and in a program that was not started as
    `python FILE`: what came by -c, -m or standard input is not there to be started again.
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
    """Whether this is `python [options] FILE arguments`."""
    options = sys.orig_argv[1 : -len(sys.argv)]
    return (
        sys.orig_argv[-len(sys.argv) :] == sys.argv
        and sys.argv[0] != "-"
        and not any(option in ("-c", "-m") for option in options)
        and bool(sys.executable)
    )


def use_cores(batch_size: int) -> int:
    """Makes JAX's CPU as many devices as a batch can be shared out to; returns how many.

    XLA computes convolutions of few channels on one core, so a single device leaves the others
    idle. The devices divide `batch_size` into shares of FEWEST_CLIPS clips or more, and there are
    no more of them than cores that this process may use, its cgroup's quota included. Does nothing,
    and returns 1, where the environment sets their number or JAX has its devices already; GPUs and
    TPUs don't mind.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "JAX_NUM_CPU_DEVICES" in os.environ or "xla_force_host_platform_device_count" in flags:
        return 1
    import jax  # not above: `use_huge_pages` comes before the slow imports

    most = min(_cores(), MOST_DEVICES, batch_size // FEWEST_CLIPS)
    devices = next((k for k in range(most, 1, -1) if batch_size % k == 0), 1)
    try:
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError:  # too late
        return 1
    if devices == 1:
        use_threaded_convolutions()
    return devices


def use_threaded_convolutions() -> None:
    """Has XLA compute convolutions by code of its own, which one device runs on all cores.

    By default they are YNNPACK's, most of which run on one core: the better choice only where each
    core is a device. Comes before JAX is used. Does nothing where XLA_FLAGS speak of YNNPACK or
    name a file of flags, and with a jaxlib that it wasn't tried with.
    """
    _add_flag(YNNPACK, unless="ynn_fusion_type")


def use_barriers() -> None:
    """Has XLA compute what a convolution's gradient lays out anew before it does so.

    For a step that trains; elsewhere nothing asks for it. Without, XLA computes BatchNorm and ReLU
    again, value by value, in the order of the new layout, which takes longer than both apart.
    Comes before JAX is used. Does nothing where XLA_FLAGS choose passes or name a file of flags,
    where JAX has anything but a CPU to run on, of which that was not tried, and with a jaxlib that
    it wasn't tried with.
    """
    if _has_only_cpu():
        _add_flag(BARRIERS, unless="hlo_passes")  # XLA aborts on some both chosen and disabled


def _add_flag(flag: str, *, unless: str) -> None:
    """Adds a flag to XLA_FLAGS unless they hold that text or name a file, or this jaxlib is new."""
    flags = os.environ.get("XLA_FLAGS", "").strip()
    of_file = flags and not flags.startswith("-")
    known = importlib.metadata.version("jaxlib").startswith(JAXLIBS)
    if known and not of_file and unless not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()


def _has_only_cpu() -> bool:
    """Whether JAX has nothing else installed, or was told to use nothing else."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return True
    packages = ("jax_plugins", "libtpu")  # where JAX looks for GPUs and TPUs
    found = any(importlib.util.find_spec(name) for name in packages)
    return not found and not importlib.metadata.entry_points(group="jax_plugins")


def _cores() -> int:
    """Cores that this process may use at once."""
    linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    try:
        quota, period = CGROUP.read_text(encoding="ascii").split()
        return min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup of version 2, or "max": no quota
        return cores
