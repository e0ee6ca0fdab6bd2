"""The embedding of a clip: what a model's last layer reads."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

SCENE_LAYERS = ("scene", "outputs")  # the second: of scenes and events together (`joint`)


def embedding(module: nn.Module, variables: Mapping, log_mel: jax.Array) -> jax.Array:
    """The embeddings of clips, (B, F, M) -> (B, D) float32.

    `Output.embedding` of the models that have one, such as a PANN; of others what the scene layer
    reads, as the mean over the frames or places that it is applied to. That is ERGL's nodes after
    the graph convolutions, D = n C.
    """
    read: list[jax.Array] = []

    def keep(call, args, kwargs, context):
        if context.module.name in SCENE_LAYERS and context.method_name == "__call__":
            read.append(args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(keep):
        output: Any = module.apply(variables, log_mel, train=False)
    if output.embedding is not None:
        return output.embedding
    (x,) = read
    return jnp.mean(x.reshape(len(x), -1, x.shape[-1]), axis=1, dtype=jnp.float32)
