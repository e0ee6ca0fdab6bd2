"""Attention in blocks equals its plain reference, values and gradients."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ergl_jax.kernels import attention as kernel
from ergl_jax.models.ergl import GraphHead, GraphReadout

CLIPS, EVENTS, TOKENS, CHANNELS = 2, 5, 3, 4
LOGITS = CLIPS * (EVENTS * TOKENS) ** 2  # 450
SHAPES = {
    "attention": (CLIPS, EVENTS * TOKENS, CHANNELS),
    "mean_pair_attention": (CLIPS, EVENTS, TOKENS, CHANNELS),
}


def draw(name, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(0), (3, *SHAPES[name])).astype(dtype)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(
    ("most", "cached"),
    [
        (LOGITS, LOGITS),  # all at once
        (LOGITS - 1, LOGITS),  # two blocks, the last one shorter
        (1, LOGITS),  # a block for each query
        (LOGITS, LOGITS - 1),  # a CPU's way: clip after clip, each at once ...
        (LOGITS, 100),  # ... and in three blocks
        (LOGITS, 1),
    ],
)
def test_equals_its_reference(name, most, cached, monkeypatch):
    monkeypatch.setattr(kernel, "MAX_LOGITS", most)
    monkeypatch.setattr(kernel, "MAX_CACHED_LOGITS", cached)
    inputs = draw(name)

    def loss(f, *inputs):
        y = f(*inputs)
        weights = jax.random.normal(jax.random.key(1), y.shape)
        return (weights * y).sum(), y

    def run(f):
        return jax.jit(jax.grad(lambda *x: loss(f, *x), (0, 1, 2), has_aux=True))(*inputs)

    function = getattr(kernel, name)
    blocked = "remat" in str(jax.make_jaxpr(lambda *x: function(*x))(*inputs))
    assert blocked == ((most, cached) != (LOGITS, LOGITS))
    got, want = run(function), run(getattr(kernel, f"{name}_reference"))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * np.abs(b).max())


@pytest.mark.parametrize(("platform", "loops"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_only_a_cpu_takes_clip_after_clip(platform, loops, monkeypatch):
    monkeypatch.setattr(kernel, "MAX_CACHED_LOGITS", LOGITS - 1)
    program = jax.jit(kernel.attention).trace(*draw("attention"))
    assert ("stablehlo.while" in program.lower(lowering_platforms=(platform,)).as_text()) == loops


@pytest.mark.parametrize("name", SHAPES)
def test_the_softmax_is_float32_in_bfloat16_too(name):
    inputs = draw(name, jnp.bfloat16)
    jaxpr = str(jax.make_jaxpr(getattr(kernel, name))(*inputs))
    assert re.findall(r":(\w+)\[[\d,]*\] = exp ", jaxpr) == ["f32"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("events", "cached", "gigabytes"),
    [(100, 2**40, 8), (400, 2**40, 60), (60, None, 2), (100, None, 4)],
)
def test_a_batch_of_64_fits_the_memory(events, cached, gigabytes, monkeypatch):
    """The head's gradient as XLA plans it for a CPU; all at once, 100 and 400 take 15 and 234 GB.

    In blocks as on a GPU (`cached`, whose own plan may differ), then clip after clip.
    """
    monkeypatch.setattr(kernel, "MAX_CACHED_LOGITS", cached or kernel.MAX_CACHED_LOGITS)
    head = GraphHead(GraphReadout(num_scenes=10))
    v = jax.ShapeDtypeStruct((64, events, 31, 64), jnp.float32)
    variables = jax.eval_shape(lambda v: head.init(jax.random.key(0), v, train=False), v)

    @jax.jit
    def gradient(variables, v):
        def loss(params, v):
            rngs = {"dropout": jax.random.key(0)}
            output, _ = head.apply(
                variables | {"params": params}, v, train=True, rngs=rngs, mutable="batch_stats"
            )
            return (output.scene_logits**2).sum() + (output.event_logits**2).sum()

        return jax.grad(loss, argnums=(0, 1))(variables["params"], v)

    plan = gradient.lower(variables, v).compile().memory_analysis()
    needed = plan.temp_size_in_bytes + plan.argument_size_in_bytes + plan.output_size_in_bytes
    assert needed < gigabytes * 1e9
