"""ergl_jax: classifies acoustic scenes with a graph of sound events (ERGL, arXiv 2210.15366).

import ergl_jax

model = ergl_jax.load("runs/synthetic/bundle")  # "esc10": a model in the package
print(model)  # system, scenes, events, clip length, front end, licence
model.scenes, model.events  # their names

result = model.classify("clip.wav")  # or samples with sample_rate=, a folder, a list
result.scene, result.probability, result.events

tags = model.tag("clip.wav")  # a PANN's or another model's events: tags.events, tags.activity

explanation = model.explain("clip.wav")  # what events and their relations contribute
vectors = model.embed("recordings/")  # (N, D), for search and clustering
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Model", "load"]

if TYPE_CHECKING:
    from ergl_jax.inference.classify import Model, load


def __getattr__(name: str):
    # Late: training and the programs of data_prep need none of it.
    if name in __all__:
        from ergl_jax.inference import classify

        return getattr(classify, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
