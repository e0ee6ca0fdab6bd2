"""The SVM against scikit-learn, ensemble selection against brute force."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.svm import LinearSVC

from ergl_jax.recipes import ensemble_selection, svm
from ergl_jax.recipes.ensemble_selection import select_ensemble
from ergl_jax.recipes.svm import fit_svm


def clips(seed, count, scenes=3, noise=1.0):
    """Features (count, 5) around one point a scene, and scenes (count,), all present."""
    rng = np.random.default_rng(seed)
    scene = rng.permutation(np.arange(count) % scenes)
    features = 2 * np.eye(5)[scene] + noise * rng.normal(size=(count, 5))
    return features.astype(np.float32), scene


def accuracy(layer, features, scene):
    logits = features @ layer["kernel"] + layer["bias"]
    return balanced_accuracy_score(scene, logits.argmax(axis=1))


@pytest.mark.parametrize("scenes", [2, 3])
def test_decision_values_are_scikit_learns(scenes):
    features, scene = clips(0, 60, scenes)
    layer = fit_svm(features, scene, num_scenes=scenes)
    other, _ = clips(1, 20, scenes)
    want = LinearSVC(C=1.0, max_iter=10_000, random_state=0).fit(features, scene)
    values = want.decision_function(other)
    if scenes == 2:
        values = np.stack([-values, values], axis=1)
    np.testing.assert_allclose(
        other @ layer["kernel"] + layer["bias"], values, rtol=1e-4, atol=1e-5
    )
    assert accuracy(layer, features, scene) > 1.3 / scenes


def test_validation_selects_c_and_the_smallest_of_equals():
    # Few and noisy clips: a small C is better for others, a large one for themselves.
    features, scene = clips(0, 24, noise=2.5)
    validation = clips(1, 200, noise=2.5)
    single = {c: svm._fit(features, scene, c) for c in svm.GRID}
    scores = {c: accuracy(layer, *validation) for c, layer in single.items()}
    assert len(set(scores.values())) > 1
    best = min(c for c in scores if scores[c] == max(scores.values()))
    found = fit_svm(features, scene, num_scenes=3, validation=validation)
    np.testing.assert_array_equal(found["kernel"], single[best]["kernel"])
    features, scene = clips(2, 30, noise=0.0)  # where all do equally well
    found = fit_svm(features, scene, num_scenes=3, validation=(features, scene))
    smallest = svm._fit(features, scene, min(svm.GRID))
    np.testing.assert_array_equal(found["kernel"], smallest["kernel"])


def test_a_scene_without_clips_and_a_single_scene_are_errors():
    features, scene = clips(0, 30)
    with pytest.raises(ValueError, match="no training clip of scene number 3, 4"):
        fit_svm(features, scene, num_scenes=5)
    with pytest.raises(ValueError, match="one class"):
        fit_svm(features, np.zeros(30, int), num_scenes=1)


def members(seed, gains, count=60, scenes=4):
    """Probabilities (members, count, scenes), each better the higher its gain, and the scenes."""
    rng = np.random.default_rng(seed)
    scene = np.minimum(np.arange(count) % (2 * scenes), scenes - 1)  # the last is common
    logits = rng.normal(size=(len(gains), count, scenes))
    logits += np.asarray(gains)[:, None, None] * np.eye(scenes)[scene]
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True), scene


def score(weights, probabilities, scene):
    mean = np.tensordot(weights, probabilities, 1)
    return balanced_accuracy_score(scene, mean.argmax(axis=1)), -log_loss(scene, mean)


def greedy(probabilities, scene, rounds):
    """Greedy selection, with each mean computed anew."""
    bag, prefixes = [], []
    for _ in range(rounds):
        candidates = [[*bag, member] for member in range(len(probabilities))]
        shares = [np.bincount(c, minlength=len(probabilities)) / len(c) for c in candidates]
        scores = [score(w, probabilities, scene) for w in shares]
        at = scores.index(max(scores))
        bag = candidates[at]
        prefixes.append((scores[at], shares[at]))
    return max(prefixes, key=lambda prefix: prefix[0])[1]


@pytest.mark.parametrize("seed", range(2))
def test_selection_is_greedy_whatever_the_order_of_members(seed):
    probabilities, scene = members(seed, [0.8, 1.0, 1.2, 0.9])
    weights = select_ensemble(probabilities, scene)
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    want = greedy(probabilities, scene, ensemble_selection.ROUNDS)
    np.testing.assert_allclose(weights, want, atol=1e-6)
    np.testing.assert_array_equal(select_ensemble(probabilities[::-1], scene), weights[::-1])


def test_of_equal_accuracies_the_lower_cross_entropy_wins():
    scene = np.arange(8) % 2
    sure, unsure = (
        np.where(np.eye(2)[scene] == 1, p, 1 - p).astype(np.float32) for p in (0.9, 0.6)
    )
    np.testing.assert_array_equal(select_ensemble(np.stack([unsure, sure]), scene), [0, 1])
