"""Embeddings of clips, and features to detect unknown sounds."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.models.output import Output

SCENE_LAYERS = ("scene", "outputs")  # the second: of scenes and events together (`joint`)


def embedding(module: nn.Module, variables: Mapping, log_mel: jax.Array) -> jax.Array:
    """The embeddings of clips, (B, F, M) -> (B, D) float32.

    `Output.embedding` of the models that have one, such as a PANN; of others what the scene layer
    reads, as the mean over the frames or places that it is applied to. That is ERGL's nodes after
    the graph convolutions, D = n C.
    """
    return _embedding(*_apply(module, variables, log_mel)[:2])


def output_and_features(
    module: nn.Module, variables: Mapping, log_mel: jax.Array
) -> tuple[Output, jax.Array]:
    """The Output of clips (B, F, M), and features (B, D) float32 for `ergl_jax.known`.

    Features are square roots (less skewed) of the encoder output's mean and std over time. The
    scene layer's input would be worse: it keeps only what separates the trained scenes. Without an
    encoder: the embedding.
    """
    output, read, encoded = _apply(module, variables, log_mel)
    if not encoded:
        return output, _embedding(output, read)
    (h,) = encoded  # (B, T, D / 2)
    h = h.astype(jnp.float32)
    return output, jnp.sqrt(jnp.concatenate([h.mean(axis=1).clip(0), h.std(axis=1)], axis=1))


def _apply(module: nn.Module, variables: Mapping, log_mel: jax.Array) -> tuple[Any, list, list]:
    """The Output, what scene layers read, and what encoders return."""
    read: list[jax.Array] = []
    encoded: list[jax.Array] = []

    def keep(call, args, kwargs, context):
        result = call(*args, **kwargs)
        if context.method_name == "__call__":
            if context.module.name in SCENE_LAYERS:
                read.append(args[0])
            if context.module.name == "encoder":
                encoded.append(result)
        return result

    with nn.intercept_methods(keep):
        output = module.apply(variables, log_mel, train=False)
    return output, read, encoded


def _embedding(output: Output, read: list[jax.Array]) -> jax.Array:
    if output.embedding is not None:
        return output.embedding
    (x,) = read
    return jnp.mean(x.reshape(len(x), -1, x.shape[-1]), axis=1, dtype=jnp.float32)
