"""The recurrent layer of the CRNNs."""

import flax.linen as nn
import jax


class BiGRU(nn.Module):
    """A GRU that reads forwards and one that reads backwards, of `features` units each."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, T, C) -> (B, T, 2 * features): at each frame the forward state, then the other."""
        forward, backward = (
            nn.RNN(nn.GRUCell(self.features, parent=None), name=name)
            for name in ("forward", "backward")
        )
        return nn.Bidirectional(forward, backward)(x)
