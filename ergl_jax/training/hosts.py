"""Several processes that train together, on one machine or many (docs/distributed.md).

All run the same program with the same configuration; process 0 writes the files. JAX's collective
operations wait for every process, so what only one of them can see (a signal, a damaged file) is
shared before any acts on it. With a single process nothing is exchanged.
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

HEARTBEAT_SECONDS = 20  # of silence, after which a process counts as dead and the others exit
SHARED_DISK_SECONDS = 60  # until a file of process 0 must be visible on a network disk
EXIT_SECONDS = 3  # that process 0 waits before it exits, so that the others can report their errors
LOST = ("Gloo", "NCCL", "UNAVAILABLE", "Connection", "heartbeat")  # in errors of lost processes


def start(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Connects this process to the others of its run; call it before any other use of JAX.

    None is detected by JAX from SLURM, Open MPI, Kubernetes or a TPU slice (not tried on any of
    these). Raises InputError where nothing is detected or the others can't be reached.
    """
    # JAX would handle SIGTERM itself; a run stops after the epoch.
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
            f"{jax.process_count()} processes: give each process the same number"
        )


def is_main_process() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


def any_process(flag: bool) -> bool:
    """Whether `flag` is true in any process; all must call this at the same point."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array(flag)).any())


def gather(tree: Any) -> Any:
    """Stacks the arrays of all P processes, of equal shapes, to (P, ...) in each of them."""
    if jax.process_count() == 1:
        return jax.tree.map(lambda x: x[None], tree)
    return multihost_utils.process_allgather(tree)


def require(condition: bool, message: str) -> None:
    """Raises InputError in all processes unless `condition` is true in all of them."""
    if any_process(not condition):
        raise InputError(message)


def check_same(text: str, what: str, remedy: str) -> None:
    """Raises InputError unless `text` is the same in all processes; `what` names it."""
    digest = np.array(zlib.crc32(text.encode()), np.uint32)
    same = (gather(digest) == digest).all()
    require(bool(same), f"the processes of this run differ in {what}: {remedy}")


def check_shared(path: Path) -> None:
    """Raises InputError unless all processes see the file `path`, which process 0 has written."""
    if jax.process_count() == 1:
        return
    deadline = time.monotonic() + SHARED_DISK_SECONDS
    while not (exists := path.exists()) and time.monotonic() < deadline:
        time.sleep(1)
    require(exists, f"not all processes see {path}: put --workdir on a disk that they share")


def main_process_first(function: Callable[[], Any]) -> Any:
    """Calls `function` in process 0, then in the others; returns its result in each.

    The others find the files that process 0 has made, or make their own if they share no disk.
    """
    if not is_main_process():
        require(True, "process 0 of this run has failed: see its output")
        return function()
    failed = True
    try:
        result = function()
        failed = False
        return result
    finally:
        any_process(failed)


def exit_together(main: Callable[..., int | None]) -> Callable[..., int | None]:
    """Decorates a program's `main`, which returns its exit status.

    At exit JAX waits for all processes, so a failed one would block with the others. It skips that
    wait; the others exit too, by heartbeat timeout or with a one-line error.
    """

    @functools.wraps(main)
    def wrapped(*arguments):
        try:
            status = main(*arguments)
        except Exception as error:
            if not jax.distributed.is_initialized():
                raise
            if isinstance(error, jax.errors.JaxRuntimeError) and any(x in str(error) for x in LOST):
                print(
                    "error: another process of this run has exited, see its output; the same "
                    f"commands continue from the last checkpoint ({str(error).splitlines()[0]})",
                    file=sys.stderr,
                )
            else:
                traceback.print_exc()
            status = 1
        if status and jax.distributed.is_initialized():
            sys.stdout.flush()
            sys.stderr.flush()
            if is_main_process():
                time.sleep(EXIT_SECONDS)
            os._exit(status)
        return status

    return wrapped
