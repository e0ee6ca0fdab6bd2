"""Multiply-accumulate operations (MACs) of a model."""

import math
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.extend import core


def count(model: nn.Module, variables: dict, shape: tuple[int, int]) -> int:
    """MACs of one clip in the convolutions and matrix products of a model. Computes nothing.

    Counts the operations as the model defines them: where kernels/ has an equivalent for one
    platform, the plain version counts.

    Args:
      model: any that takes a log-mel.
      variables: of the model, arrays or their shapes.
      shape: (F, M) of a clip.
    """
    clip = jax.ShapeDtypeStruct((1, *shape), np.float32)
    traced = jax.make_jaxpr(lambda v, x: model.apply(v, x, train=False))(variables, clip)
    return _count(traced.jaxpr)


def _count(jaxpr: Any) -> int:
    return sum(_count_equation(equation) for equation in jaxpr.eqns)


def _count_equation(equation: Any) -> int:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[parameters["dimension_numbers"].rhs_spec[0]]
        return equation.outvars[0].aval.size * math.prod(kernel) // outputs
    if name == "cond":
        return _count(parameters["branches"][-1].jaxpr)  # lax.platform_dependent's default
    inner = [
        getattr(value, "jaxpr", value)
        for value in parameters.values()
        if isinstance(value, core.Jaxpr | core.ClosedJaxpr)
    ]
    return parameters.get("length", 1) * sum(_count(each) for each in inner)
