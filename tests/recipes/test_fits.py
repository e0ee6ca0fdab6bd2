"""The SVM against scikit-learn, ensemble selection against brute force."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.svm import LinearSVC

from ergl_jax.errors import InputError
from ergl_jax.recipes import fits


def clips(seed, count, scenes=3, noise=1.0):
    """Features (count, 5) around one point a scene, and scenes (count,), all present."""
    rng = np.random.default_rng(seed)
    scene = rng.permutation(np.arange(count) % scenes)
    features = 2 * np.eye(5)[scene] + noise * rng.normal(size=(count, 5))
    return features.astype(np.float32), scene


def accuracy(svm, features, scene):
    return balanced_accuracy_score(scene, (features @ svm.kernel + svm.bias).argmax(axis=1))


@pytest.mark.parametrize("scenes", [2, 3, 5])
def test_decision_values_are_scikit_learns(scenes):
    features, scene = clips(0, 60, scenes)
    svm = fits.fit_svm(features, scene, num_scenes=scenes)
    assert svm.c == 1.0
    assert svm.kernel.shape == (5, scenes) and svm.bias.shape == (scenes,)
    other, _ = clips(1, 20, scenes)
    want = LinearSVC(C=1.0, max_iter=10_000, random_state=0).fit(features, scene)
    values = want.decision_function(other)
    if scenes == 2:
        values = np.stack([-values, values], axis=1)
    np.testing.assert_allclose(other @ svm.kernel + svm.bias, values, rtol=1e-4, atol=1e-5)
    assert accuracy(svm, features, scene) > 1.3 / scenes


def test_c_is_chosen_on_validation_the_smallest_of_equals():
    # Few and noisy clips: a small C is better for others, a large one for themselves.
    features, scene = clips(0, 24, noise=2.5)
    validation = clips(1, 200, noise=2.5)
    single = {c: fits._svm(features, scene, c) for c in fits.GRID}
    scores = {c: accuracy(svm, *validation) for c, svm in single.items()}
    assert len(set(scores.values())) > 1
    chosen = fits.fit_svm(features, scene, num_scenes=3, validation=validation)
    assert chosen.c == min(c for c in scores if scores[c] == max(scores.values()))
    np.testing.assert_array_equal(chosen.kernel, single[chosen.c].kernel)
    # Where all do equally well, the smallest.
    features, scene = clips(2, 30, noise=0.0)
    assert fits.fit_svm(features, scene, num_scenes=3, validation=(features, scene)).c == min(
        fits.GRID
    )


def test_the_fit_is_repeatable():
    features, scene = clips(0, 60)
    one, other = (fits.fit_svm(features, scene, num_scenes=3) for _ in range(2))
    np.testing.assert_array_equal(one.kernel, other.kernel)


def test_a_scene_without_clips_is_named():
    features, scene = clips(0, 30)
    with pytest.raises(InputError, match="of scene number 3, 4 of 5.*train on more clips"):
        fits.fit_svm(features, scene, num_scenes=5)
    with pytest.raises(InputError, match="two scenes or more"):
        fits.fit_svm(features, np.zeros(30, int), num_scenes=1)


def members(seed, gains, count=60, scenes=4):
    """Probabilities (members, count, scenes), each better the higher its gain, and the scenes."""
    rng = np.random.default_rng(seed)
    scene = np.arange(count) % scenes
    logits = rng.normal(size=(len(gains), count, scenes))
    logits += np.asarray(gains)[:, None, None] * np.eye(scenes)[scene]
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True), scene


def score(weights, probabilities, scene):
    mean = np.tensordot(weights, probabilities, 1)
    return balanced_accuracy_score(scene, mean.argmax(axis=1)), -log_loss(scene, mean)


def greedy(probabilities, scene, rounds):
    """The best mean of every order in which members may greedily join, by recomputing each."""
    bag, prefixes = [], []
    for _ in range(rounds):
        candidates = [[*bag, member] for member in range(len(probabilities))]
        shares = [np.bincount(c, minlength=len(probabilities)) / len(c) for c in candidates]
        scores = [score(w, probabilities, scene) for w in shares]
        at = scores.index(max(scores))
        bag = candidates[at]
        prefixes.append((scores[at], shares[at]))
    return max(prefixes, key=lambda prefix: prefix[0])[1]


@pytest.mark.parametrize("seed", range(4))
def test_selection_is_the_greedy_one(seed):
    probabilities, scene = members(seed, [0.8, 1.0, 1.2, 0.9])
    weights = fits.select_ensemble(probabilities, scene)
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(weights, greedy(probabilities, scene, fits.ROUNDS), atol=1e-6)
    alone = [score(one, probabilities, scene) for one in np.eye(4)]
    assert score(weights, probabilities, scene) >= max(alone)


def test_two_members_by_brute_force(monkeypatch):
    # With two rounds the best of all bags that hold the best member.
    monkeypatch.setattr(fits, "ROUNDS", 2)
    probabilities, scene = members(7, [1.0, 0.9, 0.7])
    singles = [score(one, probabilities, scene) for one in np.eye(3)]
    first = singles.index(max(singles))
    bags = [np.eye(3)[first]] + [(np.eye(3)[first] + one) / 2 for one in np.eye(3)]
    best = max(bags, key=lambda bag: score(bag, probabilities, scene))
    np.testing.assert_allclose(fits.select_ensemble(probabilities, scene), best, atol=1e-6)


def test_a_useless_member_gets_no_weight():
    probabilities, scene = members(0, [1.0, 1.0, 1.0])
    # Sure of a wrong scene, clip by clip.
    probabilities[1] = np.eye(4)[(scene + 1) % 4]
    weights = fits.select_ensemble(probabilities, scene)
    assert weights[1] == 0 and weights[[0, 2]].min() >= 0


def test_one_perfect_member_is_enough():
    probabilities, scene = members(0, [0.5, 0.5, 0.5])
    probabilities[2] = np.eye(4)[scene]
    np.testing.assert_array_equal(fits.select_ensemble(probabilities, scene), [0, 0, 1])


def test_equal_accuracy_goes_to_the_lower_cross_entropy():
    scene = np.arange(8) % 2
    sure, unsure = (
        np.where(np.eye(2)[scene] == 1, p, 1 - p).astype(np.float32) for p in (0.9, 0.6)
    )
    np.testing.assert_array_equal(fits.select_ensemble(np.stack([unsure, sure]), scene), [0, 1])


def test_the_order_of_the_members_does_not_matter():
    probabilities, scene = members(3, [0.8, 1.0, 1.2])
    weights = fits.select_ensemble(probabilities, scene)
    for order in itertools.permutations(range(3)):
        found = fits.select_ensemble(probabilities[list(order)], scene)
        np.testing.assert_array_equal(found, weights[list(order)])


def test_uneven_scenes_count_alike(monkeypatch):
    monkeypatch.setattr(fits, "ROUNDS", 1)
    # Member 0 has every clip of the common scene right, member 1 every clip of the rare ones.
    scene = np.array([0] * 8 + [1, 2])
    common = np.tile([0.8, 0.1, 0.1], (10, 1))
    rare = np.where(scene[:, None] == 0, [0.3, 0.4, 0.3], 0.8 * np.eye(3)[scene] + 0.2 / 3)
    assert [np.mean(p.argmax(axis=1) == scene) for p in (common, rare)] == [0.8, 0.2]
    np.testing.assert_array_equal(fits.select_ensemble(np.stack([common, rare]), scene), [0, 1])
