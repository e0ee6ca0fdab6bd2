"""PANNs that locate events in time: Cnn14_DecisionLevelMax and Cnn14_DecisionLevelAtt.

They decide on each encoder frame and pool the decisions, where Cnn14 pools the features
(arXiv 1912.10211).

Shapes: B clips, F frames, M mel bins, T encoder frames, D encoder channels, n events.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.models.layers import he_uniform, pool_over_three
from ergl_jax.models.output import Output
from ergl_jax.models.panns import Encoder

POOLINGS = ("decision_level_max", "decision_level_att")


class DecisionLevelPANN(nn.Module):
    """A PANN with a decision for each encoder frame; layers by their published names.

    It tags events, locates them in time, and has no scenes. Its embedding is the mean over time of
    what fc1 returns.

    Attributes:
      pooling: over time, to the event logits of a clip. "decision_level_max": the maximum.
        "decision_level_att": the mean of the probabilities, weighted by attention.

    Raises ValueError for another pooling.
    """

    num_events: int
    encoder: Encoder
    pooling: str
    dropout: float = 0.5

    @property
    def frames_per_step(self) -> int:
        """Frames of the log-mel in one encoder frame: 32 for Cnn14: 0.32 s at 10 ms a frame."""
        return self.encoder.frames_per_step

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) in dB -> Output with event logits (B, n) and of frames (B, T, n)."""
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling={self.pooling!r} is not one of: {', '.join(POOLINGS)}")
        h = self.encoder(log_mel, train=train)  # (B, T, D)
        z = nn.Dropout(self.dropout, deterministic=not train)(pool_over_three(h))
        z = nn.relu(nn.Dense(h.shape[-1], kernel_init=he_uniform, name="fc1")(z))  # (B, T, D)
        embedding = z.mean(axis=1)
        z = nn.Dropout(self.dropout, deterministic=not train)(z)
        if self.pooling == "decision_level_max":
            frames = nn.Dense(self.num_events, kernel_init=he_uniform, name="fc_audioset")(z)
            events = frames.max(axis=1)
        else:
            attention = nn.Dense(self.num_events, kernel_init=he_uniform, name="att")(z)
            frames = nn.Dense(self.num_events, kernel_init=he_uniform, name="cla")(z)
            events = _logit_of_mean(nn.log_softmax(attention.clip(-10, 10), axis=1), frames)
        return Output(None, events, embedding=embedding, event_logits_by_frame=frames)


def _logit_of_mean(log_weights: jax.Array, logits: jax.Array) -> jax.Array:
    """The logit of the weighted mean of probabilities; all (B, T, n), weights with sum 1 over T."""
    log_p = nn.logsumexp(log_weights + nn.log_sigmoid(logits), axis=1)
    log_not_p = nn.logsumexp(log_weights + nn.log_sigmoid(-logits), axis=1)
    return log_p - log_not_p


def upsample(by_frame: jax.Array, num_frames: int, frames_per_step: int) -> jax.Array:
    """Values of encoder frames (B, T, n) at each frame of the log-mel: (B, num_frames, n).

    As PANNs' code does: each is repeated `frames_per_step` times, and the last one further, to the
    end; the encoder leaves out up to frames_per_step - 1 last frames (10 s: 9 of 1001).
    """
    repeated = jnp.repeat(by_frame, frames_per_step, axis=1)
    missing = num_frames - repeated.shape[1]
    return jnp.pad(repeated, ((0, 0), (0, missing), (0, 0)), mode="edge")
