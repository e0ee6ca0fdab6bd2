"""The distance from training clips: closed forms of Gaussians, and laws."""

import dataclasses

import numpy as np
import pytest

from ergl_jax import known
from ergl_jax.known import Known

MIX = np.array([[3.0, 1.0], [0.0, 0.5]])


def gaussian(rng, count, mean=(0.0, 0.0)):
    return (rng.standard_normal((count, 2)) + mean) @ MIX


def with_distances(distances):
    two = np.ones(2, np.float32)
    return Known(two, two[None], two, np.sort(np.float32(distances)))


def test_a_gaussians_limit_and_auroc_have_closed_forms():
    """Squared distances are chi-squared with two degrees of freedom, non-central if shifted."""
    rng = np.random.default_rng(0)
    fitted = known.fit(gaussian(rng, 20_000), gaussian(rng, 20_000))
    # The 0.95 quantile of an exponential distribution, over two features.
    assert fitted.limit(0.95) == pytest.approx(np.sqrt(-2 * np.log(0.05) / 2), rel=0.02)
    for shift in (1.0, 2.0, 3.0):
        seen = fitted.distance(gaussian(rng, 20_000))
        unseen = fitted.distance(gaussian(rng, 20_000, (0, shift)))
        expected = 1 - np.exp(-(shift**2) / 4) / 2
        assert (seen < unseen).mean() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("keep", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("clips", [10, 57, 300])
def test_the_limit_keeps_the_share_of_new_clips(keep, clips):
    rng = np.random.default_rng(clips)
    limits = [with_distances(rng.uniform(size=clips)).limit(keep) for _ in range(2000)]
    wanted = min(np.ceil(keep * (clips + 1)), clips) / (clips + 1)
    assert np.mean(limits) == pytest.approx(wanted, abs=0.01)  # a uniform's share below the limit
    assert with_distances(np.arange(clips)).limit(1) == np.inf


def test_neither_scale_nor_place_nor_rotation_changes_a_distance():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 40)) * rng.uniform(0.1, 3, 40)
    rotation, _ = np.linalg.qr(rng.normal(size=(40, 40)))
    new = rng.normal(size=(5, 40))
    expected = known.fit(features, features).distance(new)
    for change in (lambda x: 1e-3 * x, lambda x: x + 7, lambda x: x @ rotation):
        found = known.fit(change(features), change(features)).distance(change(new))
        np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_what_is_far_is_unknown():
    """In a direction that training clips do not vary in, though less far than their classes are."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(100, 20)) + 20 * np.eye(3, 20)[np.arange(100) % 3]
    found, new = known.fit(features[:50], features[50:]), rng.normal(size=(30, 20))
    for one in np.eye(3, 20):
        assert (found.distance(new + 20 * one) < 2).all()
    far = new + 10 * np.eye(4, 20)[3]
    assert (found.distance(far) > found.limit()).all()
    assert (found.distance(2 * far) > found.distance(far)).all()


def test_too_little_to_fit_to_is_none():
    features = np.random.default_rng(0).normal(size=(40, 8))
    assert known.fit(features, features[: known.MIN_VALIDATION]) is not None
    assert known.fit(features, features[: known.MIN_VALIDATION - 1]) is None
    assert known.fit(features[:2], features) is None
    assert known.fit(np.ones_like(features), features) is None


def test_arrays_are_parsed_or_refused():
    features = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    arrays = known.fit(features, features).arrays()
    again = known.parse(arrays)
    for field in dataclasses.fields(again):
        assert getattr(again, field.name) is arrays[field.name]
    for name, wrong in (
        ("mean", arrays["mean"][1:]),
        ("mean", arrays["mean"].astype(np.float64)),
        ("directions", arrays["directions"][0]),
        ("variances", -arrays["variances"]),
        ("distances", np.full(12, np.nan, np.float32)),
        ("other", np.ones(1, np.float32)),
    ):
        with pytest.raises(ValueError, match="known/"):
            known.parse(arrays | {name: wrong})
