"""Features with mean 0 and deviation 1 in each band, by the training split."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Standardise(nn.Module):
    """(x - mean) / deviation for each band, over the training split.

    Both are measured before the first step and fixed from then on; they lie among the running
    statistics, so that a bundle carries them. A model that has one calls it `standardise`.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, F, M) -> (B, F, M)."""
        bands = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, bands)
        deviation = self.variable("batch_stats", "deviation", jnp.ones, bands)
        return (x - mean.value) / deviation.value
