"""What models return.

Shapes: B clips, n events, T tokens an event, C channels, U graph convolutions, D of an embedding.
"""

from typing import Any

import jax
from flax import struct


@struct.dataclass
class Graph:
    """Everything ERGL computes on the way to its scene logits."""

    tokens: jax.Array  # v_{i,t}: (B, n, T, C)
    nodes_in: jax.Array  # v_i, before the graph convolutions: (B, n, C)
    edges_in: jax.Array  # e_ij of MEL: (B, n, n, C)
    nodes_out: jax.Array  # after the graph convolutions: (B, n, C)
    edges_out: jax.Array  # (B, n, n, C)
    gates: jax.Array  # η_ij of each graph convolution: (U, B, n, n, C)


@struct.dataclass
class Output:
    """What every model returns: arrays, and None for what a model does not have."""

    scene_logits: Any  # (B, scenes), float32; None for a PANN alone
    event_logits: Any = None  # (B, n), float32
    graph: Graph | None = None  # of ERGL
    embedding: Any = None  # of a PANN, or input of a closed-form fit: (B, D)
    # Of a conditional model, the events given each scene: (B, scenes, n), float32.
    event_logits_by_scene: Any = None
