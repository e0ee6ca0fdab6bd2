"""A whole PANN, encoder and classifier: the teacher that pseudo-labels come from (§3.1)."""

import flax.linen as nn
import jax

from ergl_jax.models.ergl import Output
from ergl_jax.models.layers import he_uniform
from ergl_jax.models.panns import Encoder


class PANN(nn.Module):
    """Encoder, max plus mean over time, fc1, fc_audioset, by PANNs' own names (arXiv 1912.10211).

    It tags events, each by itself, and knows no scenes.
    """

    num_events: int
    encoder: Encoder
    dropout: float = 0.5

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) in dB -> Output with event logits (B, n) and the embedding (B, D)."""
        h = self.encoder(log_mel, train=train)
        embedding = clip_embedding(h, dropout=self.dropout, train=train, name="fc1")
        z = nn.Dropout(self.dropout, deterministic=not train)(embedding)
        event_logits = nn.Dense(self.num_events, kernel_init=he_uniform, name="fc_audioset")(z)
        return Output(None, event_logits, embedding=embedding)


def clip_embedding(h: jax.Array, *, dropout: float, train: bool, name: str) -> jax.Array:
    """(B, T, D) -> (B, D): max plus mean over time, and the dense layer that follows it in PANNs.

    Called within a module, which the layer `name` is then a part of.
    """
    # Not h.max(axis=1), whose gradient looks for the maximum again and divides by how often it is
    # found: never, where a compiled program has rounded h otherwise for that, and then it is NaN.
    z = nn.max_pool(h, h.shape[1:2])[:, 0] + h.mean(axis=1)
    z = nn.Dropout(dropout, deterministic=not train)(z)
    return nn.relu(nn.Dense(z.shape[-1], kernel_init=he_uniform, name=name)(z))
