"""NNF: the filter against librosa, the ensemble against its members."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
from made_systems import apply, features, init

from ergl_jax.baselines.nnf import NNFCNN, NNFEnsemble, nearest_neighbour_filter

FILTER = jax.jit(nearest_neighbour_filter)


@pytest.mark.parametrize("frames", [6, 101])
def test_the_filter_is_librosas(frames):
    x = features(2, frames, 12) - 60  # as decibels: far from zero
    # mode="distance" keeps the k nearest; librosa's default drops two of k + 2, whichever.
    want = [librosa.decompose.nn_filter(clip.T, mode="distance").T for clip in x]
    np.testing.assert_allclose(FILTER(x), want, atol=1e-4)
    assert np.abs(np.stack(want) - x).max() > 0.5


@pytest.mark.parametrize(("frames", "k"), [(2, 1), (5, 4)])
def test_of_few_frames_all_others_are_neighbours(frames, k):
    x = features(3, frames, 2)
    others = (x.sum(axis=1, keepdims=True) - x) / k
    np.testing.assert_allclose(FILTER(x), others, atol=1e-5)


def test_what_a_member_sees():
    x = features(2, 16, 16)
    plain = NNFCNN(3, width_divisor=16)
    variables = init(plain, *x.shape)
    stats = variables["batch_stats"]
    stats["standardise"] |= {"mean": jnp.full(16, 0.3), "deviation": jnp.full(16, 2.0)}
    filtered = NNFCNN(3, input="filtered", width_divisor=16)
    renamed = {
        part: {name.replace("mel_", "filtered_"): tree for name, tree in trees.items()}
        for part, trees in variables.items()
    }
    want = apply(plain, variables, FILTER(x)).scene_logits
    np.testing.assert_allclose(apply(filtered, renamed, x).scene_logits, want, atol=1e-5)
    assert np.abs(want - apply(plain, variables, x).scene_logits).max() > 1e-4


def test_the_ensemble_is_the_weighted_mean_of_its_members():
    x = features(3, 16, 16)
    ensemble = NNFEnsemble(4, members=("mel", "filtered"), width_divisor=16)
    variables = init(ensemble, *x.shape)
    np.testing.assert_array_equal(variables["batch_stats"]["weights"], [0.5, 0.5])

    def below(index):
        return {part: trees[f"member{index}"] for part, trees in variables.items()}

    # The scene layers begin near zero: larger, so that the members differ.
    for index in (0, 1):
        variables["params"][f"member{index}"]["scene"]["kernel"] *= 50
    single = [
        jax.nn.softmax(apply(NNFCNN(4, input=seen, width_divisor=16), below(i), x).scene_logits)
        for i, seen in enumerate(("mel", "filtered"))
    ]
    assert np.abs(single[0] - single[1]).max() > 0.01
    for weights in ([0.25, 0.75], [1.0, 0.0]):
        variables["batch_stats"]["weights"] = jnp.array(weights)
        mean = weights[0] * single[0] + weights[1] * single[1]
        logits = apply(ensemble, variables, x).scene_logits
        np.testing.assert_allclose(np.exp(logits), mean, rtol=1e-5)
