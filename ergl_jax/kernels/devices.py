"""Values shared between devices, and batches split over them."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def mean_over_devices(values, axis_name: str | None):
    """Means of a tree over the devices of `axis_name`."""
    # XLA copies what it averages, over one device too.
    alone = axis_name is None or jax.lax.axis_size(axis_name) == 1
    return values if alone else jax.lax.pmean(values, axis_name)


def split_batch(function: Callable, variables) -> Callable:
    """Compiles `rows -> function(variables, rows)`, rows (B, ...) split over the local devices.

    B is a multiple of the number of devices. By shard_map, since the compiler's own partitioning
    gathers all rows on every device for an FFT.
    """
    mesh = Mesh(np.array(jax.local_devices()), ("batch",))
    whole, split = PartitionSpec(), PartitionSpec("batch")
    run = jax.shard_map(function, mesh=mesh, in_specs=(whole, split), out_specs=split)
    run = jax.jit(run, in_shardings=(NamedSharding(mesh, whole), NamedSharding(mesh, split)))
    return functools.partial(run, jax.device_put(variables, NamedSharding(mesh, whole)))
