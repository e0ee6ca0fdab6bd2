"""Models by name: `build(config.model, ...)`."""

from ergl_jax.models.cnn import CNN
from ergl_jax.models.ergl import ERGL, Graph, Output
from ergl_jax.models.gated_gcn import to_graphs_tuple
from ergl_jax.models.panns import Encoder
from ergl_jax.models.registry import SYSTEMS, build, check_variant, system
from ergl_jax.models.tagger import PANN

__all__ = [
    "CNN",
    "ERGL",
    "PANN",
    "SYSTEMS",
    "Encoder",
    "Graph",
    "Output",
    "build",
    "check_variant",
    "system",
    "to_graphs_tuple",
]
