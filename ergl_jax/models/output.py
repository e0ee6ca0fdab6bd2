"""What models return.

Shapes: B clips, n events, T tokens an event, C channels, U layers, D of an embedding.
"""

import jax
from flax import struct


@struct.dataclass
class Graph:
    """All that ERGL computed on the way to its scene logits."""

    tokens: jax.Array  # v_{i,t}: (B, n, T, C)
    nodes_in: jax.Array  # v_i, before the graph convolutions: (B, n, C)
    edges_in: jax.Array  # e_ij by MEL: (B, n, n, C)
    nodes_out: jax.Array  # after the U layers: (B, n, C)
    edges_out: jax.Array  # (B, n, n, C)
    gates: jax.Array  # η_ij of each layer: (U, B, n, n, C)


@struct.dataclass
class Output:
    """What every model returns; what a model doesn't have is None."""

    scene_logits: jax.Array | None  # (B, scenes), float32; None of a PANN alone
    event_logits: jax.Array | None = None  # (B, n), float32
    graph: Graph | None = None  # of ERGL
    embedding: jax.Array | None = None  # of a PANN, and of what is fitted at once: (B, D)
    # Of a conditional model: the events as they would be in each scene, (B, scenes, n), float32.
    event_logits_by_scene: jax.Array | None = None
