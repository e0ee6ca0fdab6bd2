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
        h = self.encoder(log_mel, train=train)  # (B, T, D)
        z = h.max(axis=1) + h.mean(axis=1)
        z = nn.Dropout(self.dropout, deterministic=not train)(z)
        embedding = nn.relu(nn.Dense(z.shape[-1], kernel_init=he_uniform, name="fc1")(z))
        z = nn.Dropout(self.dropout, deterministic=not train)(embedding)
        event_logits = nn.Dense(self.num_events, kernel_init=he_uniform, name="fc_audioset")(z)
        return Output(None, event_logits, embedding=embedding)
