"""What models return.

Shapes: B clips, n events, T tokens an event or encoder frames, C channels, U graph convolutions,
D of an embedding.
"""

from typing import Any

import jax
from flax import struct


@struct.dataclass
class Graph:
    """The graph of a clip's events, and what ERGL computes on the way to its scene logits.

    Attributes:
      nodes_in: v_i, what the readout reads: (B, n, C); the dynamic event graph has features.
      edges_in: e_ij, what the readout reads: (B, n, n, C); the dynamic event graph has lags.
      tokens: v_{i,t}, (B, n, T, C); of ERGL, as all that follow.
      nodes_out: after the graph convolutions, (B, n, C).
      edges_out: after the graph convolutions, (B, n, n, C).
      gates: η_ij of each graph convolution, (U, B, n, n, C).
    """

    nodes_in: jax.Array
    edges_in: jax.Array
    tokens: Any = None
    nodes_out: Any = None
    edges_out: Any = None
    gates: Any = None


@struct.dataclass
class Output:
    """What every model returns: arrays, and None for what a model does not have.

    Attributes:
      scene_logits: (B, scenes), float32; None for a PANN alone.
      event_logits: (B, n), float32.
      graph: of ERGL and of the dynamic event graph.
      embedding: of a PANN, or input of a closed-form fit: (B, D).
      event_logits_by_scene: of a conditional model, the events given each scene: (B, scenes, n),
        float32.
      event_logits_by_frame: of a model that locates events, at each encoder frame: (B, T, n),
        float32. T is 1 for tokens="clip".
    """

    scene_logits: Any
    event_logits: Any = None
    graph: Graph | None = None
    embedding: Any = None
    event_logits_by_scene: Any = None
    event_logits_by_frame: Any = None
