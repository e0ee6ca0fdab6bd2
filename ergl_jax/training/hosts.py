"""Several processes that train together, on one machine or many (docs/distributed.md).

All run the same program on the same configuration; process 0 leads: it writes what is written once.
What one of them finds out alone, all must agree on before they act on it, or they wait for each
other for good. One process alone asks nobody and pays nothing.
"""

import functools
import os
import sys
import time
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ergl_jax.errors import InputError

HEARTBEAT_SECONDS = 20  # a process that is silent for so long is dead, and ends the others
PATIENCE_SECONDS = 60  # for what process 0 wrote to be seen by the others, on a network's disk
LAST_SECONDS = 3  # that process 0 leaves to the others, who may have an error of their own to tell
LOST = ("Gloo", "NCCL", "UNAVAILABLE", "Connection", "heartbeat")  # in errors of lost processes


def start(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins this process to the others of its run, before JAX is used otherwise.

    None stands for what SLURM, Open MPI, Kubernetes or a TPU slice tells by itself. Raises
    InputError where nothing tells, or the others don't come.
    """
    # JAX would take SIGTERM for itself; the run's own way is to stop after an epoch.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(
            f"this process can't join the others of its run: {reason}; without SLURM, Open MPI or "
            "a TPU slice give --coordinator_address=HOST:PORT of process 0, --num_processes and "
            "--process_id"
        ) from error
    if jax.device_count() != jax.process_count() * jax.local_device_count():
        raise InputError(
            f"this process has {jax.local_device_count()} of the {jax.device_count()} devices of "
            f"{jax.process_count()} processes: give each as many"
        )


def is_main_process() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


def any_process(flag: bool) -> bool:
    """Whether `flag` is up in any process; all must ask at the same place."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array(flag)).any())


def gather(tree: Any) -> Any:
    """Arrays (P, ...) of what each of the P processes has, in all of them; of equal shapes."""
    if jax.process_count() == 1:
        return jax.tree.map(lambda x: x[None], tree)
    return multihost_utils.process_allgather(tree)


def check_same(text: str, what: str, advice: str) -> None:
    """InputError unless `text` is the same in all processes; `what` says what it is."""
    sums = gather(np.array(zlib.crc32(text.encode()), np.uint32))
    if (sums != sums[0]).any():
        raise InputError(f"the processes of this run differ in {what}: {advice}")


def check_shared(path: Path) -> None:
    """InputError unless all processes see the file `path` that process 0 has written."""
    if jax.process_count() == 1:
        return
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := path.exists()) and time.monotonic() < deadline:
        time.sleep(1)
    if any_process(not found):
        raise InputError(
            f"{path} of process 0 is not there for all processes: name a --workdir on a disk that "
            "they share"
        )


def main_process_first(function: Callable[[], Any]) -> Any:
    """What `function` returns in each process, process 0 being through before the others begin.

    So they find what it made, where they share a disk, and make their own where they don't.
    """
    if jax.process_count() == 1:
        return function()
    if not is_main_process():
        if any_process(False):
            raise InputError("process 0 of this run has stopped: it says why")
        return function()
    try:
        result = function()
    except BaseException:
        any_process(True)
        raise
    any_process(False)
    return result


def ending_together(main: Callable[..., int | None]) -> Callable[..., int | None]:
    """Decorates a program's `main`, which returns its exit status.

    At JAX's own exit a process that has failed would wait for the others, and they wait for it. So
    it leaves without: then they end too, by its silence or by an error that is told in a line.
    """

    @functools.wraps(main)
    def ended(*arguments):
        try:
            status = main(*arguments)
        except Exception as error:
            if not jax.distributed.is_initialized():
                raise
            if isinstance(error, jax.errors.JaxRuntimeError) and any(x in str(error) for x in LOST):
                print(
                    "error: another process of this run has ended, see what it says; the same "
                    f"commands go on after the last checkpoint ({str(error).splitlines()[0]})",
                    file=sys.stderr,
                )
            else:
                traceback.print_exc()
            status = 1
        if status and jax.distributed.is_initialized():
            sys.stdout.flush()
            sys.stderr.flush()
            if is_main_process():
                time.sleep(LAST_SECONDS)
            os._exit(status)
        return status

    return ended
