"""Augmentation: what changes, by how much, and that nothing does when it is off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import ergl
from ergl_jax.errors import InputError
from ergl_jax.training import augmentation as augment

CLIPS, FRAMES, MELS = 16, 30, 12
KEY = jax.random.key(0)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return {
        "log_mel": jnp.asarray(rng.normal(-40, 10, (CLIPS, FRAMES, MELS)), jnp.float32),
        "scene": jnp.eye(4)[np.arange(CLIPS) % 4],
        "events": jnp.asarray(rng.random((CLIPS, 3)), jnp.float32),
    }


def apply(batch, key=KEY, **fields):
    config = ergl.get_config().augment
    config.update(fields)
    return augment.make_augment(config)(key, batch)


def test_the_papers_configuration_changes_nothing(batch):
    after = apply(batch)
    assert after.keys() == batch.keys()
    for name in batch:
        np.testing.assert_array_equal(after[name], batch[name])


@pytest.mark.parametrize("axis", [1, 2])
def test_a_mask_is_one_stripe_of_the_clips_mean(batch, axis):
    x, width = np.asarray(batch["log_mel"]), 5
    seen = set()
    for seed in range(10):
        after = np.asarray(augment.mask(jax.random.key(seed), x, axis=axis, count=1, width=width))
        changed = after != x
        line = changed.any(axis=3 - axis)
        assert (changed.all(axis=3 - axis) == line).all()  # whole frames, or whole mel bins
        for clip in range(CLIPS):
            where = np.flatnonzero(line[clip])
            assert len(where) <= width
            assert not len(where) or np.ptp(where) == len(where) - 1
            seen.add((len(where), where[0] if len(where) else None))
        mean = np.broadcast_to(x.mean(axis=(1, 2), keepdims=True), x.shape)
        np.testing.assert_allclose(after[changed], mean[changed], rtol=1e-5)
    assert {length for length, _ in seen} == set(range(width + 1))
    starts = {start for length, start in seen if length == 1}
    assert {0, x.shape[axis] - 1} <= starts if axis == 2 else len(starts) > 10


def test_masks_of_a_clip_are_several_and_of_its_own(batch):
    x = np.asarray(batch["log_mel"])
    after = apply(batch, time_masks=3, time_width=4, mel_masks=2, mel_width=3)["log_mel"]
    changed = np.asarray(after) != x
    assert changed.all(axis=2).sum(axis=1).max() > 4  # more than one stripe can hide
    assert changed.all(axis=2).sum(axis=1).max() <= 12
    assert changed.all(axis=1).sum(axis=1).max() <= 6
    assert len({row.tobytes() for row in changed}) > CLIPS // 2


def test_a_mask_wider_than_the_clip_hides_at_most_all(batch):
    after = augment.mask(KEY, batch["log_mel"], axis=2, count=4, width=100)
    assert np.isfinite(after).all() and after.shape == batch["log_mel"].shape


def test_roll_turns_each_clip_by_a_shift_of_its_own(batch):
    after = np.asarray(apply(batch, roll=True)["log_mel"])
    x = np.asarray(batch["log_mel"])
    turns = [
        [shift for shift in range(FRAMES) if (np.roll(clip, shift, axis=0) == rolled).all()]
        for clip, rolled in zip(x, after, strict=True)
    ]
    assert all(len(turn) == 1 for turn in turns)
    assert len({turn[0] for turn in turns}) > CLIPS // 2


def test_mixup_has_the_same_shares_in_sound_and_labels(batch):
    after = apply(batch, mixup_alpha=0.8)
    x, shares = np.asarray(batch["log_mel"], np.float64), []
    for clip in range(CLIPS):
        mixed = np.asarray(after["log_mel"][clip], np.float64)
        for partner in range(CLIPS):
            difference = (x[clip] - x[partner]).ravel()
            if clip == partner:
                share = 1.0
            else:
                share = (mixed - x[partner]).ravel() @ difference / (difference @ difference)
            if np.abs(share * x[clip] + (1 - share) * x[partner] - mixed).max() < 1e-3:
                break
        else:
            pytest.fail(f"clip {clip} is a mixture of no other")
        for name in ("scene", "events"):
            expected = share * batch[name][clip] + (1 - share) * batch[name][partner]
            np.testing.assert_allclose(after[name][clip], expected, atol=1e-4)
        if clip != partner:
            shares.append(share)
    assert len(shares) > CLIPS // 2 and np.ptp(shares) > 0.3
    assert min(shares) > -1e-5 and max(shares) < 1 + 1e-5
    np.testing.assert_allclose(after["scene"].sum(axis=1), 1, rtol=1e-5)


def test_mixup_shares_follow_the_beta_distribution(batch):
    many = {"log_mel": jnp.zeros((4000, 1, 1)), "scene": jnp.arange(4000.0)[:, None]}
    many["events"] = many["scene"] >= 2000  # mixing two of a half tells nothing of the share
    after = augment.mixup(KEY, many | {"events": many["events"].astype(jnp.float32)}, 0.3)
    shares = np.asarray(after["events"])[:2000, 0]
    shares = shares[shares > 0]  # 1 - share, of the clips mixed with one of the other half
    # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1))
    assert np.mean(shares) == pytest.approx(0.5, abs=0.04)
    assert np.var(shares) == pytest.approx(1 / (4 * 1.6), abs=0.015)


def test_the_key_decides(batch):
    fields = {"roll": True, "mixup_alpha": 0.3, "time_masks": 1, "time_width": 9}
    first, again, other = (
        np.asarray(apply(batch, jax.random.key(seed), **fields)["log_mel"]) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


@pytest.mark.parametrize(
    "field", ["time_masks", "time_width", "mel_masks", "mel_width", "mixup_alpha"]
)
def test_a_negative_number_is_refused(batch, field):
    with pytest.raises(InputError, match=rf"augment.{field}=-1.* is negative"):
        apply(batch, **{field: -1.0 if field == "mixup_alpha" else -1})
