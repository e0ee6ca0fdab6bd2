"""The scattering transform against its definition, against Kymatio, and its laws.

Compared with Kymatio (0.3.0) where it is installed: `pip install kymatio`.
"""

import functools

import jax
import numpy as np
import pytest

from ergl_jax.audio import get_front_end, log_mel
from ergl_jax.audio.scattering import PADDING, PHI_WIDTH, Q1, Q2, paths, scattering, wavelets

T, HOP, OFFSET = 128, 64, 1e-6
ROWS = {path: row for row, path in enumerate(paths(T))}
FIRST, SECOND = wavelets(T, Q1), wavelets(T, Q2)

scattered = jax.jit(functools.partial(scattering, scale=T, hop=HOP, offset=OFFSET))


def noise(length=4000, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal((1, length)).astype(np.float32)


def tone(frequency, length=4000):
    """`frequency` in cycles a sample."""
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(length))


def test_equals_its_definition():
    """Each convolution at every sample, in float64, subsampled at the end only."""
    length = 45 * 2 * HOP - 2 * PADDING * T  # a length that needs no further padding
    waveform = noise(length)
    found = np.asarray(scattered(waveform))[0]
    assert found.shape == (1 + length // HOP, len(paths(T))) and found.dtype == np.float32
    pad = PADDING * T
    padded = np.pad(np.float64(waveform[0]), pad, mode="reflect")
    frequencies = np.fft.fftfreq(len(padded))
    phi = np.exp(-(frequencies**2) / (2 * (PHI_WIDTH / T) ** 2))

    def filtered(x, transfer):
        return np.fft.ifft(np.fft.fft(x) * transfer)

    def averaged(x):
        return filtered(x, phi).real[pad : pad + length + 1 : HOP]

    moduli = [np.abs(filtered(padded, psi(frequencies))) for psi in FIRST]
    for path, row in ROWS.items():
        expected = averaged(moduli[path[0]])
        if len(path) == 2:
            modulus = np.abs(filtered(moduli[path[0]], SECOND[path[1]](frequencies)))
            expected = averaged(modulus) / (expected + OFFSET)
        # The tolerance is for the aliasing that `Wavelet.rate` allows.
        np.testing.assert_allclose(found[:, row], expected, rtol=5e-3, err_msg=str(path))


def test_equals_kymatio():
    """Without subsampling: there Kymatio 0.3.0 scales differently."""
    frontend = pytest.importorskip("kymatio.scattering1d.frontend.numpy_frontend")
    length = 4096 - 2 * HOP * 8
    waveform = noise(length)
    other = frontend.ScatteringNumPy1D(
        J=T.bit_length() - 1, shape=length, Q=(Q1, Q2), T=T, oversampling=T.bit_length()
    )
    coefficients, meta = other(np.float64(waveform[0])), other.meta()
    orders = [coefficients[meta["order"] == order][:, ::HOP] for order in (1, 2)]
    first, second = (meta["xi"][meta["order"] == order] for order in (1, 2))
    count = len(FIRST)
    np.testing.assert_allclose(first[:, 0], [each.centre for each in FIRST])
    centres = [(FIRST[i].centre, SECOND[k].centre) for i, k in paths(T)[count:]]
    np.testing.assert_allclose(second[:, :2], centres)
    found = np.asarray(scattered(waveform))[0].T
    inner = slice(12, -12)  # the two pad differently
    np.testing.assert_allclose(found[:count, :-1][:, inner], orders[0][:, inner], rtol=5e-3)
    parents = [i for i, _ in paths(T)[count:]]
    ratios = orders[1] / orders[0][parents]
    np.testing.assert_allclose(found[count:, :-1][:, inner], ratios[:, inner], rtol=1e-2)


def test_wavelets_have_mean_zero_sum_one_and_cover_all_frequencies():
    size = 1 << 14
    frequencies = np.fft.fftfreq(size)
    for bank in (FIRST, SECOND):
        transfers = np.stack([each(frequencies) for each in bank])
        np.testing.assert_allclose(transfers[:, 0], 0, atol=1e-12)
        in_time = np.abs(np.fft.ifft(transfers)).sum(axis=1)
        np.testing.assert_allclose(in_time, 1, rtol=1e-2)  # the fastest has few samples
        phi = np.exp(-(frequencies**2) / (2 * (PHI_WIDTH / T) ** 2))
        power = (transfers**2).sum(axis=0)
        covered = (phi**2 + (power + np.roll(power[::-1], 1)) / 2)[
            np.abs(frequencies) <= bank[0].centre
        ]
        assert 0.15 < covered.min() and covered.max() < 1.1
    for faster, slower in zip(FIRST, FIRST[1:], strict=False):
        assert slower.centre < faster.centre and slower.width <= faster.width
        if slower.width > PHI_WIDTH / T:  # above those at equal distances
            assert slower.centre / faster.centre == pytest.approx(2 ** (-1 / Q1))


def test_a_tone_is_where_its_frequency_is():
    index = 12
    found = np.asarray(scattered(tone(FIRST[index].centre)[None].astype(np.float32)))[0]
    middle = found[20:-20, : len(FIRST)].mean(axis=0)
    assert middle.argmax() == index
    assert middle[index] == pytest.approx(0.25, rel=0.02)  # half its amplitude, one side of it


def test_a_gain_changes_the_first_order_alone():
    waveform = noise()
    quiet, loud = (np.asarray(scattered(x))[0] for x in (waveform, 8 * waveform))
    count = len(FIRST)
    np.testing.assert_allclose(loud[:, :count], 8 * quiet[:, :count], rtol=1e-4)
    np.testing.assert_allclose(loud[:, count:], quiet[:, count:], rtol=0.05)


def test_paths_are_the_first_order_then_the_second():
    orders = [len(path) for path in paths(T)]
    assert orders == sorted(orders) and len(set(paths(T))) == len(paths(T))
    assert list(paths(T)[len(FIRST) :]) == sorted(paths(T)[len(FIRST) :])
    assert sum(len(path) == 1 for path in paths(4096)) == 86 and len(paths(4096)) == 545


def test_the_front_end_is_the_logarithm():
    """A tone and silence, which is finite."""
    front_end = get_front_end("scattering")
    chosen = wavelets(4096, Q1)[40]
    waveforms = np.float32([tone(chosen.centre, 22050), np.zeros(22050)])
    found = np.asarray(log_mel(waveforms, front_end))
    assert found[0, 5, :86].argmax() == 40
    assert found[0, 5, 40] == pytest.approx(np.log(0.25), abs=0.02)
    np.testing.assert_allclose(found[1], np.log(1e-6), rtol=1e-6)
