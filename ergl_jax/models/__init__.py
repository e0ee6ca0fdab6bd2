"""ERGL (arXiv 2210.15366) and its encoders, PANNs."""

from ergl_jax.models.ergl import ERGL
from ergl_jax.models.gated_gcn import to_graphs_tuple
from ergl_jax.models.output import Graph, Output
from ergl_jax.models.panns import PANN, Encoder

__all__ = ["ERGL", "PANN", "Encoder", "Graph", "Output", "to_graphs_tuple"]
