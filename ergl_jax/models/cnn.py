"""The encoder alone as a scene classifier: what ERGL's graph is measured against."""

import flax.linen as nn
import jax

from ergl_jax.models.ergl import Output
from ergl_jax.models.layers import he_uniform, small_uniform
from ergl_jax.models.panns import Encoder


class CNN(nn.Module):
    """Encoder, max plus mean over time, a shared layer and the scene layer, as in PANNs."""

    num_scenes: int
    encoder: Encoder
    dropout: float = 0.5

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) in dB -> Output with scene logits alone."""
        h = self.encoder(log_mel, train=train)  # (B, T, D)
        z = h.max(axis=1) + h.mean(axis=1)
        z = nn.Dropout(self.dropout, deterministic=not train)(z)
        z = nn.relu(nn.Dense(z.shape[-1], kernel_init=he_uniform, name="shared")(z))
        z = nn.Dropout(self.dropout, deterministic=not train)(z)
        return Output(nn.Dense(self.num_scenes, kernel_init=small_uniform, name="scene")(z))
