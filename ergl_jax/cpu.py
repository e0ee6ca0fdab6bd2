"""What a program asks of Linux and JAX so that a CPU is well used (docs/performance.md).

Both must come early: huge pages before anything slow is imported, devices before JAX is used.
"""

import os
import sys

VARIABLE, VALUE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
MOST_DEVICES = 8  # each holds a copy of the weights
FEWEST_CLIPS = 4  # of a device's share: products get narrow and slow below


def use_huge_pages() -> None:
    """Starts this program again with a malloc that asks Linux for huge pages.

    XLA takes its working memory anew at each call, and the kernel hands it out page by page: 4 KiB
    at a time, or 2 MiB where malloc asks. glibc reads that wish from the environment only, when a
    program starts. Arguments and process id stay. Does nothing where GLIBC_TUNABLES is already set,
    to whatever value, and elsewhere than on Linux.
    """
    if sys.platform != "linux" or VARIABLE in os.environ or not sys.executable:
        return
    os.environ[VARIABLE] = VALUE
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def use_cores(batch_size: int) -> int:
    """Makes JAX's CPU as many devices as a batch can be shared out to; returns how many.

    XLA computes convolutions of few channels on one core, so a single device leaves the others
    idle. The devices divide `batch_size` into shares of FEWEST_CLIPS clips or more, and there are
    no more of them than cores that this process may use. Does nothing, and returns 1, where the
    environment sets their number or JAX has its devices already; GPUs and TPUs don't mind.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "JAX_NUM_CPU_DEVICES" in os.environ or "xla_force_host_platform_device_count" in flags:
        return 1
    import jax  # not above: `use_huge_pages` comes before the slow imports

    linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    most = min(cores, MOST_DEVICES, batch_size // FEWEST_CLIPS)
    devices = next((k for k in range(most, 1, -1) if batch_size % k == 0), 1)
    try:
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError:  # too late
        return 1
    return devices
