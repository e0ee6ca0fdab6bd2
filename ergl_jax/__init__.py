"""ergl_jax: classifies acoustic scenes with a graph of sound events (ERGL, arXiv 2210.15366).

model = ergl_jax.load("runs/synthetic/bundle")
print(model.classify("clip.wav"))
"""

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str):
    # Late: training and the programs of data_prep need none of it.
    if name == "load":
        from ergl_jax.inference.classify import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
