"""The encoder alone as a scene classifier: the ablation without ERGL's graph."""

import flax.linen as nn
import jax

from ergl_jax.models.layers import small_uniform
from ergl_jax.models.output import Output
from ergl_jax.models.panns import Encoder, clip_embedding


class CNN(nn.Module):
    """Encoder, max plus mean over time, a shared layer and the scene layer, as in PANNs."""

    num_scenes: int
    encoder: Encoder
    dropout: float = 0.5

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) in dB -> Output with scene logits alone."""
        h = self.encoder(log_mel, train=train)
        z = clip_embedding(h, dropout=self.dropout, train=train, name="shared")
        z = nn.Dropout(self.dropout, deterministic=not train)(z)
        return Output(nn.Dense(self.num_scenes, kernel_init=small_uniform, name="scene")(z))
