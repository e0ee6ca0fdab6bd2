"""Event embeddings and the event classifier (§2.1).

Shapes: B clips, T encoder frames, D encoder channels, n events, C channels of an embedding.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.models.layers import he_uniform, pool_over_three

TOKENS = ("frame", "clip")


class EventEmbeddings(nn.Module):
    """A small layer for each event on one shared representation (§2.1): the event's tokens.

    tokens="clip" is the text read literally, one token an event:
    v_i = ReLU(FC_i(ReLU(FC(max_t h_t + mean_t h_t)))).

    tokens="frame", our interpretation, applies the same layers to each encoder frame, with maximum
    and mean over three frames. With one token an edge could not depend on its sender, since NNM's
    softmax over a single key is 1, and GAP would have nothing to average.

    Raises ValueError for other `tokens`.
    """

    num_events: int
    channels: int = 64
    tokens: str = "frame"
    dropout: float = 0.5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, h: jax.Array, *, train: bool) -> jax.Array:
        """(B, T, D) -> (B, n, T, C), or (B, n, 1, C) for tokens="clip"."""
        width = h.shape[-1]
        if self.tokens == "frame":
            z = pool_over_three(h)  # (B, T, D)
        elif self.tokens == "clip":
            z = h.max(axis=1, keepdims=True) + h.mean(axis=1, keepdims=True)  # (B, 1, D)
        else:
            raise ValueError(f"tokens={self.tokens!r} is not one of: {', '.join(TOKENS)}")
        z = nn.Dropout(self.dropout, deterministic=not train)(z)
        g = nn.relu(nn.Dense(width, kernel_init=he_uniform, dtype=self.dtype, name="shared")(z))
        # The n layers as one kernel; the events are a batch axis, so fan_in is D for each.
        kernel = self.param(
            "kernel",
            nn.initializers.variance_scaling(2.0, "fan_in", "uniform", batch_axis=(0,)),
            (self.num_events, width, self.channels),
        )
        bias = self.param("bias", nn.initializers.zeros, (self.num_events, 1, self.channels))
        v = jnp.einsum("btd,ndc->bntc", g, kernel.astype(self.dtype))
        return nn.relu(v + bias.astype(self.dtype))


def pool_tokens(v: jax.Array) -> jax.Array:
    """Tokens v_{i,t} (B, n, T, C) -> nodes v_i (B, n, C)."""
    # Maximum plus mean, as §2.1 pools time: a mean alone loses a short sound among silent frames.
    # Halved, so that a single token is its own node.
    return (v.max(axis=2) + v.mean(axis=2)) / 2


class EventClassifier(nn.Module):
    """A logit for each event from its own embedding, by its own weights (§2.1)."""

    @nn.compact
    def __call__(self, v: jax.Array) -> jax.Array:
        """(..., n, C) -> (..., n), float32."""
        events, channels = v.shape[-2:]
        kernel = self.param(
            "kernel",
            nn.initializers.variance_scaling(
                2.0, "fan_in", "uniform", in_axis=1, out_axis=(), batch_axis=(0,)
            ),
            (events, channels),
        )
        bias = self.param("bias", nn.initializers.zeros, (events,))
        return jnp.einsum("...nc,nc->...n", v.astype(jnp.float32), kernel) + bias
