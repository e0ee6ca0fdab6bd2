"""Values shared between devices."""

import jax


def mean_over_devices(values, axis_name: str | None):
    """Means of a tree over the devices of `axis_name`."""
    # XLA copies what it averages, over one device too.
    alone = axis_name is None or jax.lax.axis_size(axis_name) == 1
    return values if alone else jax.lax.pmean(values, axis_name)
