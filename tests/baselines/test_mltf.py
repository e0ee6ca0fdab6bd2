"""MLTF: rank pooling against SciPy's least squares, the two heads of one network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from made_systems import apply, count, features, init, leaves, trained_once

from ergl_jax.baselines.mltf import MLTF, RIDGE, rank_pool, temporal_features

FEATURES = jax.jit(temporal_features)


def regression(x, ridge=RIDGE):
    """Rank pooling of one sequence (T, D) by least squares in all D unknowns, float64."""
    x = np.asarray(x, np.float64)
    time = np.arange(1, len(x) + 1)
    means = np.stack([x[:t].mean(axis=0) for t in time])
    r = ridge * np.mean(np.sum(means**2, axis=1))
    rows = np.vstack([means, np.sqrt(r) * np.eye(x.shape[1])])
    return scipy.linalg.lstsq(rows, np.concatenate([time, np.zeros(x.shape[1])]))[0]


def described(segments):
    """The temporal features of one clip (N, D), step by step."""

    def level(x):
        x = np.asarray(x, np.float64)
        parts = np.sqrt(np.hstack([np.maximum(x, 0), np.maximum(-x, 0)]))
        return np.concatenate([regression(parts), regression(parts[::-1])])

    windows = [level(segments[i : i + 3]) for i in range(max(len(segments) - 2, 1))]
    x = level(np.stack(windows))
    x = np.sign(x) * np.sqrt(np.abs(x))
    return x / np.linalg.norm(x)


@pytest.mark.parametrize("steps", [1, 3, 13])
def test_rank_pooling_is_ridge_regression(steps):
    x = np.abs(features(2, 4, steps, 30))
    want = [[regression(sequence) for sequence in row] for row in x]
    np.testing.assert_allclose(rank_pool(jnp.asarray(x)), want, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("segments", [1, 3, 13])
def test_temporal_features_step_by_step(segments):
    x = features(2, segments, 8)
    found = np.asarray(FEATURES(x))
    assert found.shape == (2, 16 * 8)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found, np.stack([described(clip) for clip in x]), atol=3e-3)


def test_silence_is_zeros_and_a_steady_clip_is_finite():
    np.testing.assert_array_equal(FEATURES(jnp.zeros((2, 13, 8))), 0)
    x = np.repeat(features(1, 1, 512), 13, axis=1)
    found = np.asarray(FEATURES(x))
    assert np.isfinite(found).all() and np.linalg.norm(found) == pytest.approx(1, rel=1e-4)


def test_a_clips_logits_are_the_mean_of_its_segments():
    model, x = MLTF(3, width_divisor=16), features(2, 150, 8)
    variables = init(model, *x.shape)
    single = [apply(model, variables, x[:, i : i + 50]).scene_logits for i in (0, 50, 100)]
    want = np.mean(single, axis=0)
    np.testing.assert_allclose(apply(model, variables, x).scene_logits, want, atol=1e-5)
    assert np.ptp(single, axis=0).max() > 1e-4


def test_the_svm_reads_the_features_of_the_trained_cnn():
    cnn, svm = (MLTF(3, head=head, width_divisor=16) for head in ("cnn", "svm"))
    x = features(2, 150, 8)
    variables, other = init(cnn, *x.shape), init(svm, *x.shape)
    assert set(variables["params"]) ^ set(other["params"]) == {"scene", "svm"}
    for part in ("params", "batch_stats"):
        other[part] |= {k: v for k, v in variables[part].items() if k != "scene"}
    _, state = cnn.apply(variables, x, train=False, capture_intermediates=True)
    z = np.asarray(state["intermediates"]["fc"]["__call__"][0]).reshape(2, 3, 32)
    assert z.min() < 0 < z.max()
    output = apply(svm, other, x)
    np.testing.assert_allclose(output.embedding, [described(clip) for clip in z], atol=5e-3)
    layer = other["params"]["svm"]
    want = output.embedding @ layer["kernel"] + layer["bias"]
    np.testing.assert_allclose(output.scene_logits, want, atol=1e-5)


def test_under_the_svm_nothing_trains():
    """Neither weights nor statistics of the network."""
    model, x = MLTF(3, head="svm", width_divisor=16), features(2, 100, 8)
    variables = init(model, *x.shape)
    gradient, updated = trained_once(model, variables, x, np.array([0, 2]))
    moving = {path.split("/")[0] for path, g in leaves(gradient).items() if np.abs(g).max() > 0}
    assert moving == {"svm"}
    jax.tree.map(np.testing.assert_array_equal, variables["batch_stats"], updated)


def test_frames_that_are_no_whole_segments_are_an_error():
    for frames in (49, 120):
        with pytest.raises(ValueError, match=f"{frames} frames, not a multiple of 50"):
            count(MLTF(10), 1, frames, 8)
