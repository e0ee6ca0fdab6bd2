"""Work on several devices: means over them, and clips sharded over them.

Training maps its steps with jax.pmap instead (training/step.py).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def mean_over_devices(values: Any, axis_name: str | None) -> Any:
    """Means of a tree's leaves over the mapped axis `axis_name`; None: the values themselves."""
    # XLA copies what it averages, even on one device.
    alone = axis_name is None or jax.lax.axis_size(axis_name) == 1
    return values if alone else jax.lax.pmean(values, axis_name)


def shard_clips(
    function: Callable, arguments: int, devices: Sequence[jax.Device] | None = None
) -> tuple[Callable, tuple[NamedSharding, ...]]:
    """`function`, with the clips of its last argument and of its result split over devices.

    Clips are on the leading axis, a multiple of the devices (by default the local ones); the other
    arguments are whole on each device. Mapped by `jax.shard_map`: XLA's partitioner would gather
    all clips on each device for the FFT of `log_mel`.

    Returns:
      The mapped function, for `jax.jit`, and the sharding of each of its `arguments`; the last is
      the result's too.
    """
    mesh = Mesh(devices or jax.local_devices(), ("clips",))
    specs = (PartitionSpec(),) * (arguments - 1) + (PartitionSpec("clips"),)
    mapped = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=specs[-1])
    return mapped, tuple(NamedSharding(mesh, spec) for spec in specs)


def split_batch(function: Callable, variables: Any) -> Callable:
    """Compiles `rows -> function(variables, rows)` with the rows split over the local devices."""
    run, (whole, split) = shard_clips(function, arguments=2)
    run = jax.jit(run, in_shardings=(whole, split), out_shardings=split)
    return partial(run, jax.device_put(variables, whole))
