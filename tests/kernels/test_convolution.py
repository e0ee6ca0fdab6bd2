"""The encoders' convolution against XLA's own and its derivatives."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ergl_jax.kernels import convolution, winograd
from ergl_jax.kernels.convolution import convolve
from ergl_jax.models.layers import Conv

SHAPES = {  # x, side, channels out
    "first layer": ((2, 9, 16, 1), 3, 4),
    "first layer, full width": ((1, 9, 8, 1), 3, 64),
    "first layer, 5 x 5": ((2, 9, 16, 1), 5, 8),
    "eight bins at once": ((2, 7, 8, 3), 3, 4),
    "two bins at once": ((2, 7, 6, 16), 3, 16),
    "an odd number of bins": ((2, 7, 5, 8), 3, 8),
    "four bins at once, 5 x 5": ((2, 9, 12, 8), 5, 8),
    "wide": ((2, 9, 8, 64), 3, 128),
    "wide, 5 x 5": ((1, 9, 16, 64), 5, 128),
    "more channels than outputs": ((1, 5, 2, 32), 3, 48),
    "four clips, first layer": ((4, 9, 16, 1), 3, 4),
    "four clips, two bins at once": ((4, 7, 6, 16), 3, 16),
    "four clips, 5 x 5": ((4, 9, 12, 8), 5, 8),
    "four clips, wide": ((4, 9, 8, 16), 3, 32),
    "fewer frames than pieces": ((1, 3, 64, 8), 3, 8),
    "pieces of unequal length": ((3, 10, 8, 8), 3, 32),
    "many channels": ((2, 16, 8, 128), 3, 160),
    "many channels, odd sides": ((1, 33, 9, 160), 3, 128),
    "many channels, few pixels": ((3, 7, 16, 128), 3, 128),
    "many channels, 5 x 5": ((1, 17, 16, 128), 5, 128),
    "one output": ((1, 1, 1, 64), 3, 128),
}

WAYS = {
    "_input_gradient_col2im": convolution,
    "_kernel_gradient_im2col": convolution,
    "_kernel_gradient_in_segments": convolution,
    "convolve": winograd,
}


def draw(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def plain(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def with_gradients(function, x, kernel, dy):
    """The convolution and its gradients by both arguments, as NumPy arrays."""

    @jax.jit
    def run(x, kernel, dy):
        y, vjp = jax.vjp(function, x, kernel)
        return y, *vjp(dy)

    return [np.asarray(z) for z in run(x, kernel, dy)]


@pytest.mark.parametrize("name", SHAPES)
def test_equals_the_plain_convolution_and_its_gradients(name):
    shape, side, channels = SHAPES[name]
    x = draw(*shape)
    kernel = draw(side, side, shape[-1], channels, seed=1) / side
    dy = draw(*shape[:-1], channels, seed=2)
    with jax.default_matmul_precision("float32"):
        got, want = (with_gradients(f, x, kernel, dy) for f in (convolve, plain))
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


def test_every_way_of_computing_it_is_compared_above(monkeypatch):
    taken = set()
    for name, module in WAYS.items():
        ours = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, name=name, ours=ours: taken.add(name) or ours(*a)
        )
    strides, of_gradients = set(), set()
    for shape, side, channels in SHAPES.values():
        x, kernel = draw(*shape), draw(side, side, shape[-1], channels)
        program = jax.jit(jax.vjp(convolve, x, kernel)[1]).trace(draw(*shape[:-1], channels))
        text = jax.jit(convolve).trace(x, kernel).lower(lowering_platforms=("cpu",)).as_text()
        strides |= set(re.findall(r"stride = \[1, (\d)\]", text))
        text = program.lower(lowering_platforms=("cpu",)).as_text()
        of_gradients |= set(re.findall(r"rhs_dilate = \[1, (\d)\]", text))
    assert taken == {*WAYS}
    assert strides == {"1", "2", "4", "8"}
    assert of_gradients >= {"2", "4", "8"}  # of the kernels' by bins side by side


@pytest.mark.parametrize("at_once", [1, 2 * 5 * 6 * 4, 3 * 5 * 6 * 4, 2**23])
@pytest.mark.parametrize("frames, mels", [(5, 6), (6, 5), (1, 1), (1, 2), (2, 1)])
def test_winograds_is_the_plain_convolution_however_many_clips_at_once(
    monkeypatch, at_once, frames, mels
):
    monkeypatch.setattr(winograd, "_AT_ONCE", at_once)
    x, kernel, dy = draw(4, frames, mels, 3), draw(3, 3, 3, 4, seed=1), draw(4, frames, mels, 4)
    got, want = (with_gradients(f, x, kernel, dy) for f in (winograd.convolve, plain))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


def test_clips_that_take_turns_need_the_memory_of_one(monkeypatch):
    x, kernel, dy = draw(8, 32, 8, 16), draw(3, 3, 16, 16, seed=1), draw(8, 32, 8, 16, seed=2)

    def planned(at_once):
        monkeypatch.setattr(winograd, "_AT_ONCE", at_once)
        gradients = jax.jit(lambda *a: jax.vjp(winograd.convolve, *a[:2])[1](a[2]))
        compiled = gradients.lower(x, kernel, dy).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # Less by more than the forward pass saves: nothing transformed is kept for the gradient.
    assert planned(32 * 8 * 16) < planned(x.size) / 4


@pytest.mark.parametrize("name", ["many channels", "many channels, odd sides"])
def test_winograds_is_as_accurate_as_the_plain_convolution(name):
    shape, side, channels = SHAPES[name]
    x, kernel = draw(*shape), draw(side, side, shape[-1], channels, seed=1)
    dy = draw(*shape[:-1], channels, seed=2)
    with jax.enable_x64(True):
        exact = with_gradients(plain, *(np.float64(z) for z in (x, kernel, dy)))
    for function in (plain, winograd.convolve):
        for found, want in zip(with_gradients(function, x, kernel, dy), exact, strict=True):
            error = np.sqrt(np.mean(np.square(found - want)) / np.mean(np.square(want)))
            assert error < 2e-6


def test_is_exported_for_any_number_of_clips():
    shape, side, channels = SHAPES["many channels"]
    x, kernel = draw(*shape), draw(side, side, shape[-1], channels, seed=1)
    (clips,) = jax.export.symbolic_shape("clips")
    any_x = jax.ShapeDtypeStruct((clips, *shape[1:]), x.dtype)
    exported = jax.export.export(jax.jit(convolve), platforms=("cpu", "cuda"))(any_x, kernel)
    want = plain(x, kernel)
    found = exported.call(x, kernel)
    np.testing.assert_allclose(found, want, atol=1e-5 * np.abs(want).max())
    np.testing.assert_array_equal(found, jax.jit(convolve)(x, kernel))


def test_no_clips_and_one_clip_are_computed_as_many_are():
    shape, side, channels = SHAPES["many channels"]
    x, kernel = draw(*shape), draw(side, side, shape[-1], channels, seed=1)
    assert convolve(x[:0], kernel).shape == (0, *shape[1:-1], channels)
    programs = {
        n: str(jax.make_jaxpr(convolve)(x[:n], kernel)).count("dot_general") for n in (1, 2)
    }
    assert programs == {1: 16, 2: 16}


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_get_the_plain_convolution(platform):
    x, kernel = draw(2, 8, 8, 4), draw(3, 3, 4, 4)

    def text(function):
        lowered = jax.jit(jax.grad(lambda *a: jnp.square(function(*a)).sum(), argnums=(0, 1)))
        lowered = lowered.trace(x, kernel).lower(lowering_platforms=(platform,))
        return sorted(re.findall(r"window = \{[^}]*\}", lowered.as_text()))

    assert text(convolve) == text(plain)


def test_the_layer_keeps_float32_parameters_and_computes_in_its_dtype():
    x = draw(2, 8, 8, 16)
    layer = Conv(16, dtype=jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x)
    assert variables["params"]["kernel"].dtype == jnp.float32
    assert variables["params"]["kernel"].shape == (3, 3, 16, 16)
    y = layer.apply(variables, x)
    assert y.dtype == jnp.bfloat16
    want = plain(x, variables["params"]["kernel"])
    np.testing.assert_allclose(y.astype(np.float32), want, atol=0.03 * np.abs(want).max())


@pytest.mark.parametrize("name", ["first layer, full width", "more channels than outputs"])
def test_scattered_gradients_are_summed_in_float32(name):
    shape, side, channels = SHAPES[name]
    x, kernel = draw(*shape), draw(side, side, shape[-1], channels, seed=1)
    dy = draw(*shape[:-1], channels, seed=2)
    half = [z.astype(jnp.bfloat16) for z in (x, kernel, dy)]
    got = jax.vjp(convolve, *half[:2])[1](half[2])[0]
    want = jax.vjp(plain, *(z.astype(jnp.float32) for z in half[:2]))[1](
        half[2].astype(jnp.float32)
    )[0]
    assert got.dtype == jnp.bfloat16
    # No more than the result's own rounding, 2^-9 of each value.
    np.testing.assert_allclose(got.astype(np.float32), want, rtol=2**-8, atol=1e-5)


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="side=2"):
        Conv(4, 2).init(jax.random.key(0), draw(1, 4, 4, 1))
