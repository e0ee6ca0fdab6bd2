"""The dynamic event graph: classifies scenes only by when each event sounds.

ERGL's scene layer can ignore the edges, since the nodes carry everything the encoder extracts. Here
the graph is computed from the events' activities p_i(t) alone, learnt from the event loss:

    p_i(t) = σ(w_i · h_t + b_i)                                 event i at encoder frame t
    y_i    = mean_t p_i(t), or Σ p_i² / Σ p_i                   compared with a clip's labels
    m_i    = clip((max_t p_i - 0.2) / 0.4, 0, 1)                whether it sounds at all
    v_i    = [mean_t p_i, m_i]                                  node: how long, and whether
    e_ij(τ) = m_i m_j corr(p_j(t), p_i(t + τ)),  i ≠ j          edge: i sounds τ seconds after j
    scene  = b + Σ_i U_i v_i + Σ_ij W_ij e_ij                   logits

corr is a correlation over the clip, its lag blurred by half a second; it is positive where i sounds
τ after j more often than by chance, negative where less often, and exactly 0 where one of them is
silent. Edge (i, j) has τ = 0, 0.5 .. 3 s; negative lags are those of edge (j, i).

The scene loss has no gradient to p. Otherwise activities would encode the scene (leakage in concept
bottleneck models), and edges could again be ignored. So the two parts train one after the other:
first the encoder and the activities, by the event loss; then U and W by convex optimisation, with
as few pairs of events as possible (recipes/sparse_relations.py). Logits are sums: what a node or an
edge contributes is its own term, not an approximation.

Shapes: B clips, F frames, M mel bins, T encoder frames, D encoder channels, n events, K lags.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ergl_jax.models.layers import he_uniform
from ergl_jax.models.losses import Parts, add, binary_loss
from ergl_jax.models.output import Graph, Output
from ergl_jax.models.panns import Encoder

LAGS = tuple(0.5 * k for k in range(7))  # τ in seconds
BLUR = LAGS[1] - LAGS[0]  # half the base of the triangle around each, in seconds
POOLINGS = ("mean", "linear")
MAX_FRAMES = 2048  # of an encoder; correlations need T² weights
SMALL = 0.02  # added to the standard deviations' product, so that silence has no correlation


class DynamicEventGraph(nn.Module):
    """The scene of a clip from the activities of its events.

    Attributes:
      num_scenes, num_events: how many classes; num_events is n.
      encoder: as of `ERGL`; its `time_pools` decide how fine the activities are.
      frame_seconds: from one frame of the log-mel spectrogram to the next.
      pooling: of p_i(t) over time, for the event loss: "mean" where labels are shares of the clip,
        "linear" (softmax) where they are presences.
      edges: False is the ablation: all edges are zeros.
      dropout: before the activities' layer.
    """

    num_scenes: int
    num_events: int
    encoder: Encoder
    frame_seconds: float
    pooling: str = "mean"
    edges: bool = True
    dropout: float = 0.0

    @property
    def step_seconds(self) -> float:
        """From one encoder frame to the next."""
        return self.frame_seconds * self.encoder.frames_per_step

    def setup(self):
        self.activity = EventActivity(self.num_events, self.dropout)
        self.readout = SumReadout(self.num_scenes)

    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) in dB -> Output with its Graph, and the graph as its embedding."""
        h = self.encoder(log_mel, train=train).astype(jnp.float32)  # (B, T, D)
        by_frame = self.activity(h, train=train)
        p = nn.sigmoid(by_frame).swapaxes(1, 2)  # (B, n, T)
        y = pool_activity(p, self.pooling)  # (B, n)
        nodes, edges = event_graph(jax.lax.stop_gradient(p), self.step_seconds)
        if not self.edges:
            edges = jnp.zeros_like(edges)
        return Output(
            self.readout(nodes, edges),
            event_logits=_logits(y),
            graph=Graph(nodes, edges),
            embedding=jnp.concatenate([_flat(nodes), _flat(edges)], axis=1),
            event_logits_by_frame=by_frame,
        )

    def read(self, nodes: jax.Array, edges: jax.Array) -> jax.Array:
        """The scene logits (B, scenes) of another graph."""
        return self.readout(nodes, edges)


def activity_loss(output: Output, *, scene: jax.Array, events: jax.Array) -> Parts:
    """Binary cross entropy of shares of the clip, and of whether an event sounds in it at all.

    For labels (B, n) that are shares, 0 to 1. The second term, on the "linear" pooling, pushes
    activities up where an event sounds briefly; a low activity throughout would also match the
    share.
    """
    shares = binary_loss(logits=output.event_logits, targets=events)
    p = nn.sigmoid(output.event_logits_by_frame).swapaxes(1, 2)
    logits = _logits(pool_activity(p, "linear"))
    presences = binary_loss(logits=logits, targets=(events > 0).astype(jnp.float32))
    return add(scene_loss=jnp.zeros(()), event_loss=shares + presences)


def frames_loss(
    output: Output, *, scene: jax.Array, events: jax.Array, activity: jax.Array
) -> Parts:
    """Binary cross entropy of p_i(t) at each encoder frame with the share in which i sounds.

    `activity` (B, F, n) has the shares of the log-mel's frames, 0 to 1.
    """
    logits = output.event_logits_by_frame
    targets = by_encoder_frame(activity, logits.shape[1])
    return add(scene_loss=jnp.zeros(()), event_loss=binary_loss(logits=logits, targets=targets))


def by_encoder_frame(activity: jax.Array, frames: int) -> jax.Array:
    """(B, F, n) -> (B, T, n), for T = `frames`: the mean over what each encoder frame pools."""
    # Encoders halve time k times, each time without an odd last frame: T = F // 2^k.
    pooled = 1 << (activity.shape[1] // frames).bit_length() - 1  # 2^k
    whole = activity[:, : frames * pooled]
    return whole.reshape(len(activity), frames, pooled, -1).mean(axis=2)


class EventActivity(nn.Module):
    """The logits of p_i(t): a linear layer on each encoder frame."""

    num_events: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, h: jax.Array, *, train: bool) -> jax.Array:
        """(B, T, D) -> (B, T, n)."""
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        return nn.Dense(self.num_events, kernel_init=he_uniform, name="events")(h)


def pool_activity(p: jax.Array, pooling: str) -> jax.Array:
    """(B, n, T) -> (B, n), strictly between 0 and 1; ValueError for another pooling."""
    if pooling not in POOLINGS:
        raise ValueError(f"pooling={pooling!r} is not one of: {', '.join(POOLINGS)}")
    y = p.mean(axis=2) if pooling == "mean" else (p * p).sum(axis=2) / (p.sum(axis=2) + 1e-6)
    return jnp.clip(y, 1e-6, 1 - 1e-6)


def _logits(y: jax.Array) -> jax.Array:
    return jnp.log(y) - jnp.log1p(-y)


def event_graph(p: jax.Array, seconds: float) -> tuple[jax.Array, jax.Array]:
    """Activities (B, n, T), one every `seconds` -> nodes v (B, n, 2), edges e (B, n, n, K).

    e_ij is at [b, i, j]: event i sounds τ seconds after event j.
    """
    n, frames = p.shape[1:]
    share = p.mean(axis=2)
    m = jnp.clip((p.max(axis=2) - 0.2) / 0.4, 0, 1)
    nodes = jnp.stack([share, m], axis=-1)

    q = p - share[..., None]
    size = jnp.sqrt((q * q).sum(axis=2))  # (B, n)
    scale = size[:, :, None] * size[:, None] + SMALL * frames
    both = m[:, :, None] * m[:, None] * (1 - jnp.eye(n))
    later = jnp.asarray(blurred_shifts(frames, seconds))  # (K, T, T)
    shifted = jnp.einsum("kts,bis->bkit", later, q)  # q_i(t + τ)
    edges = jnp.einsum("bkit,bjt->bijk", shifted, q)
    return nodes, edges * (both / scale)[..., None]


def blurred_shifts(frames: int, seconds: float) -> np.ndarray:
    """(K, T, T): row t of each averages frames around t + τ, by a triangle.

    Raises ValueError for more frames than MAX_FRAMES.
    """
    if frames > MAX_FRAMES:
        raise ValueError(
            f"{frames} encoder frames a clip are more than {MAX_FRAMES}: use shorter clips, or "
            "more encoder.time_pools"
        )
    ahead = (np.arange(frames) - np.arange(frames)[:, None]) * seconds  # s - t
    weights = [np.maximum(0, 1 - np.abs(ahead - lag) / max(BLUR, seconds)) for lag in LAGS]
    whole = max(1.0, max(BLUR, seconds) / seconds)  # the sum of a triangle inside the clip
    return np.stack(weights).astype(np.float32) / np.float32(whole)


class SumReadout(nn.Module):
    """Scene logits: a sum of one term for each event and each pair of events."""

    num_scenes: int

    @nn.compact
    def __call__(self, nodes: jax.Array, edges: jax.Array) -> jax.Array:
        """v (B, n, 2), e (B, n, n, K) -> (B, scenes)."""
        from_nodes = nn.Dense(self.num_scenes, kernel_init=nn.initializers.zeros, name="nodes")(
            _flat(nodes)
        )
        from_edges = nn.Dense(
            self.num_scenes, use_bias=False, kernel_init=nn.initializers.zeros, name="edges"
        )(_flat(edges))
        return from_nodes + from_edges


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], -1)
