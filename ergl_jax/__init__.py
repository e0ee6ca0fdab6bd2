"""ergl_jax: acoustic scenes by their event-relational graph (ERGL, arXiv 2210.15366)."""

__version__ = "0.1.0"
