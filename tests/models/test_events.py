"""Event embeddings and the event classifier against their equations, written out."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from made_systems import KEY

from ergl_jax.models.events import EventClassifier, EventEmbeddings

CLIPS, FRAMES, WIDTH, EVENTS, CHANNELS = 2, 5, 6, 3, 4


def make(tokens, frames=FRAMES, **fields):
    """The module, random parameters, and an h that has both signs."""
    module = EventEmbeddings(EVENTS, CHANNELS, tokens, **fields)
    rng = np.random.default_rng(2)
    h = np.float32(rng.normal(size=(CLIPS, frames, WIDTH)))
    shapes = jax.eval_shape(lambda: module.init(KEY, h, train=False))
    return module, jax.tree.map(lambda x: np.float32(0.7 * rng.normal(size=x.shape)), shapes), h


def naive(params, h, tokens):
    """v[b, i, t] frame by frame and event by event in float64."""
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    h = np.asarray(h, np.float64)
    frames = h.shape[1]
    if tokens == "clip":
        z = (h.max(axis=1) + h.mean(axis=1))[:, None]
    else:
        z = np.empty_like(h)
        for t in range(frames):
            near = h[:, max(t - 1, 0) : t + 2]
            # The average counts zeros beyond both ends, the maximum doesn't.
            z[:, t] = near.max(axis=1) + near.sum(axis=1) / 3
    v = np.empty((CLIPS, EVENTS, z.shape[1], CHANNELS))
    for b, i, t in np.ndindex(v.shape[:3]):
        g = np.maximum(z[b, t] @ params["shared"]["kernel"] + params["shared"]["bias"], 0)
        v[b, i, t] = np.maximum(g @ params["kernel"][i] + params["bias"][i, 0], 0)
    return v


@pytest.mark.parametrize(
    ("tokens", "frames", "count"), [("frame", 5, 5), ("frame", 1, 1), ("clip", 5, 1)]
)
def test_tokens_equal_the_layers_written_out(tokens, frames, count):
    module, variables, h = make(tokens, frames)
    v = module.apply(variables, h, train=False)
    want = naive(variables["params"], h, tokens)
    assert v.shape == want.shape == (CLIPS, EVENTS, count, CHANNELS)
    assert (want > 0).mean() > 0.2
    np.testing.assert_allclose(v, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens", ["frame", "clip"])
def test_dropout_precedes_the_shared_layer_in_training_alone(tokens):
    module, variables, _ = make(tokens, dropout=0.4)
    h = jax.random.uniform(KEY, (CLIPS, 200, WIDTH), minval=1.0, maxval=2.0)
    seen = {}

    def spy(next_fun, args, kwargs, context):
        out = next_fun(*args, **kwargs)
        if context.method_name == "__call__":
            seen[type(context.module).__name__] = (args[0], out)
        return out

    with nn.intercept_methods(spy):
        module.apply(variables, h, train=True, rngs={"dropout": KEY})
    before, after = seen["Dropout"]
    np.testing.assert_array_equal(seen["Dense"][0], after)
    ratio = np.asarray(after / before)
    np.testing.assert_allclose(ratio[ratio != 0], 1 / 0.6, rtol=1e-5)
    if tokens == "frame":
        assert (ratio == 0).mean() == pytest.approx(0.4, abs=0.05)


def test_each_event_has_he_bounds_of_its_own_fan_in():
    events, width, channels = 40, 96, 24
    h, v = jnp.zeros((1, 2, width)), jnp.zeros((1, events, channels))
    init = jax.jit(partial(EventEmbeddings(events, channels).init, train=False))
    params = init(KEY, h)["params"]
    own = params["kernel"]
    assert own.shape == (events, width, channels)
    classifier = jax.jit(EventClassifier().init)(KEY, v)["params"]
    assert classifier["kernel"].shape == (events, channels)
    kernels = [(kernel, width) for kernel in (*own, params["shared"]["kernel"])]
    for kernel, inputs in (*kernels, (classifier["kernel"], channels)):
        bound = math.sqrt(6 / inputs)
        assert 0.97 * bound < np.abs(kernel).max() <= bound
        assert np.std(kernel) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert classifier["bias"].shape == (events,)
    for bias in (params["bias"], params["shared"]["bias"], classifier["bias"]):
        assert not bias.any()
    # No two events start alike.
    assert len({kernel.tobytes() for kernel in np.asarray(own)}) == events


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_classifier_gives_each_event_its_own_weights(dtype):
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(EVENTS, CHANNELS)), rng.normal(size=EVENTS)
    v = jnp.asarray(rng.normal(size=(CLIPS, EVENTS, CHANNELS)), dtype)
    params = {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}
    logits = EventClassifier().apply({"params": params}, v)
    v = np.asarray(v, np.float64)
    want = [[v[b, i] @ kernel[i] + bias[i] for i in range(EVENTS)] for b in range(CLIPS)]
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, want, rtol=1e-5, atol=1e-5)


def test_unknown_tokens_are_named():
    module = EventEmbeddings(EVENTS, CHANNELS, "word")
    with pytest.raises(ValueError, match="tokens='word' is not one of: frame, clip"):
        module.init(KEY, jnp.zeros((1, 3, WIDTH)), train=False)
