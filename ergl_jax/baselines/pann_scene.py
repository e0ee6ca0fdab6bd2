"""A PANN as a scene classifier: its layers, and one more for the scenes (arXiv 1912.10211).

A linear layer on the embedding, as in PANNs' published template for fine-tuning; or on the event
tags, another interpretation of "PANN, fixed".
"""

import flax.linen as nn
import jax

from ergl_jax.models.layers import he_uniform, small_uniform
from ergl_jax.models.output import Output
from ergl_jax.models.panns import Encoder, clip_embedding


class PANNScene(nn.Module):
    """The layers of `PANN` by the same names, so that its weights fit, and the layer `scene`.

    Attributes:
      num_scenes: the scenes.
      encoder: of the PANN.
      num_events: the events that the PANN tags; used with head_on="tags" alone.
      head_on: what the scene layer reads: "embedding", or "tags", the events' probabilities.
      frozen: the PANN's layers run as in evaluation and get no gradient.
      dropout: before fc1 (unless frozen) and on the embedding.
    """

    num_scenes: int
    encoder: Encoder
    num_events: int = 527
    head_on: str = "embedding"
    frozen: bool = False
    dropout: float = 0.5

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) in dB -> Output with scene logits and the PANN's embedding (B, D)."""
        if self.head_on not in ("embedding", "tags"):
            raise ValueError(f'head_on={self.head_on!r} is neither "embedding" nor "tags"')
        train_pann = train and not self.frozen
        h = self.encoder(log_mel, train=train_pann)
        embedding = clip_embedding(h, dropout=self.dropout, train=train_pann, name="fc1")
        if self.head_on == "embedding":
            x = nn.Dropout(self.dropout, deterministic=not train)(embedding)
        else:
            x = nn.Dropout(self.dropout, deterministic=not train_pann)(embedding)
            logits = nn.Dense(self.num_events, kernel_init=he_uniform, name="fc_audioset")(x)
            x = nn.sigmoid(logits)  # (B, n)
        if self.frozen:
            x = jax.lax.stop_gradient(x)
        scene_logits = nn.Dense(self.num_scenes, kernel_init=small_uniform, name="scene")(x)
        return Output(scene_logits, embedding=embedding)
