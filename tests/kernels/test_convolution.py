"""The convolution equals its plain reference, values and gradients, in each of its forms."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ergl_jax.kernels import convolution, winograd
from ergl_jax.kernels.convolution import convolve, convolve_reference

SHAPES = {  # x, side, channels out
    "first layer, eight bins at once": ((2, 9, 16, 1), 3, 4),
    "first layer, four clips": ((4, 9, 16, 1), 3, 4),
    "two bins at once": ((4, 7, 6, 16), 3, 16),
    "four bins at once, 5 x 5": ((4, 9, 12, 8), 5, 8),
    "an odd number of bins": ((2, 7, 5, 8), 3, 8),
    "wide": ((4, 9, 8, 16), 3, 32),
    "first layer, wide": ((4, 9, 8, 1), 3, 32),
    "wide, 5 x 5, one clip": ((1, 9, 16, 64), 5, 128),
    "more channels than pixels": ((1, 5, 2, 32), 3, 48),
    "one pixel": ((1, 1, 1, 64), 3, 128),
    "fewer frames than segments": ((1, 3, 64, 8), 3, 8),
    "segments of unequal length": ((3, 10, 8, 8), 3, 32),
    "Winograd": ((2, 16, 8, 128), 3, 160),
    "Winograd, odd sides": ((1, 33, 9, 160), 3, 128),
}
FORMS = {
    convolution: (
        "_convolve_packed_mels",
        "_input_gradient_col2im",
        "_kernel_gradient_im2col",
        "_kernel_gradient_in_segments",
    ),
    winograd: ("convolve",),
}


def draw(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def inputs(name):
    """x, kernel and the gradient by the output."""
    shape, side, channels = SHAPES[name]
    kernel = draw(side, side, shape[-1], channels, seed=1) / side
    return draw(*shape), kernel, draw(*shape[:-1], channels, seed=2)


def with_gradients(function, *inputs):
    """The convolution and its gradients by both arguments, as NumPy arrays."""

    @jax.jit
    def run(x, kernel, dy):
        y, vjp = jax.vjp(function, x, kernel)
        return y, *vjp(dy)

    return [np.asarray(z) for z in run(*inputs)]


def check_equal(function, *inputs):
    with jax.default_matmul_precision("float32"):
        got, want = (with_gradients(f, *inputs) for f in (function, convolve_reference))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("name", SHAPES)
def test_equals_its_reference(name):
    check_equal(convolve, *inputs(name))


@pytest.mark.parametrize(
    "name",
    ("first layer, wide", "four bins at once, 5 x 5", "two bins at once", "an odd number of bins"),
)
def test_on_tpu_equals_its_reference(name, tpu_forms):
    check_equal(convolve, *inputs(name))


def test_the_shapes_above_take_every_form(monkeypatch):
    taken = set()
    for module, names in FORMS.items():
        for name in names:
            ours = getattr(module, name)
            monkeypatch.setattr(
                module, name, lambda *a, name=name, ours=ours: taken.add(name) or ours(*a)
            )
    for name in SHAPES:
        jax.eval_shape(convolution._gradients_on_cpu, *inputs(name))
    assert taken == {name for names in FORMS.values() for name in names}


@pytest.mark.parametrize("clips_at_once", [1, 3, 4])
@pytest.mark.parametrize(("frames", "mels"), [(5, 6), (1, 2)])
def test_winograd_in_groups_of_clips(monkeypatch, clips_at_once, frames, mels):
    monkeypatch.setattr(winograd, "_MAX_VALUES", clips_at_once * frames * mels * 4)
    x, kernel, dy = draw(4, frames, mels, 3), draw(3, 3, 3, 4, seed=1), draw(4, frames, mels, 4)
    check_equal(winograd.convolve, x, kernel, dy)


def test_groups_of_clips_need_the_memory_of_one(monkeypatch):
    x, kernel, dy = draw(8, 32, 8, 16), draw(3, 3, 16, 16, seed=1), draw(8, 32, 8, 16, seed=2)

    def planned(values):
        monkeypatch.setattr(winograd, "_MAX_VALUES", values)
        gradients = jax.jit(lambda *a: jax.vjp(winograd.convolve, *a[:2])[1](a[2]))
        compiled = gradients.lower(x, kernel, dy).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # Less by more than the forward pass saves: no transformed inputs are kept for the gradient.
    assert planned(32 * 8 * 16) < planned(x.size) / 4


def test_winograd_is_as_accurate_as_the_plain_convolution():
    given = inputs("Winograd, odd sides")
    with jax.enable_x64(True):
        exact = with_gradients(convolve_reference, *(np.float64(z) for z in given))
    for function in (convolve_reference, winograd.convolve):
        for found, want in zip(with_gradients(function, *given), exact, strict=True):
            error = np.sqrt(np.mean(np.square(found - want)) / np.mean(np.square(want)))
            assert error < 2e-6


def test_exported_for_any_number_of_clips():
    x, kernel, _ = inputs("Winograd")
    (clips,) = jax.export.symbolic_shape("clips")
    any_x = jax.ShapeDtypeStruct((clips, *x.shape[1:]), x.dtype)
    exported = jax.export.export(jax.jit(convolve), platforms=("cpu", "cuda"))(any_x, kernel)
    np.testing.assert_array_equal(exported.call(x, kernel), jax.jit(convolve)(x, kernel))
    assert convolve(x[:0], kernel).shape == (0, *x.shape[1:-1], kernel.shape[-1])


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_use_the_plain_convolution(platform):
    x, kernel = draw(2, 8, 8, 4), draw(3, 3, 4, 4)

    def windows(function):
        gradients = jax.jit(jax.grad(lambda *a: jnp.square(function(*a)).sum(), argnums=(0, 1)))
        text = gradients.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
        return sorted(re.findall(r"window = \{[^}]*\}", text))

    assert windows(convolve) == windows(convolve_reference)


def test_bfloat16_products_are_summed_in_float32():
    half = [z.astype(jnp.bfloat16) for z in inputs("more channels than pixels")]
    got = jax.vjp(convolve, *half[:2])[1](half[2])[0]
    wide = [z.astype(jnp.float32) for z in half]
    want = jax.vjp(convolve_reference, *wide[:2])[1](wide[2])[0]
    assert got.dtype == jnp.bfloat16
    # No more than the result's own rounding, 2^-9 of each value.
    np.testing.assert_allclose(got.astype(np.float32), want, rtol=2**-8, atol=1e-5)
