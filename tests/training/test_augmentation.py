"""Augmentation: what changes, by how much, and that nothing does when it is off."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import ergl
from ergl_jax.training import augmentation

CLIPS, FRAMES, MELS = 16, 30, 12


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "log_mel": jnp.asarray(rng.normal(-40, 10, (CLIPS, FRAMES, MELS)), jnp.float32),
        "scene": jnp.eye(4)[np.arange(CLIPS) % 4],
        "events": jnp.asarray(rng.random((CLIPS, 3)), jnp.float32),
    }


def apply(batch, seed=0, **fields):
    config = ergl.get_config().augment
    config.update(fields)
    augment = jax.jit(augmentation.make_augment(config))
    return jax.device_get(augment(jax.random.key(seed), batch))


def test_the_papers_configuration_changes_nothing(batch):
    jax.tree.map(np.testing.assert_array_equal, apply(batch), batch)


@pytest.mark.parametrize("axis", [1, 2])
def test_a_mask_is_a_stripe_filled_with_the_clips_mean(batch, axis):
    x, width = np.asarray(batch["log_mel"]), 5
    mask = jax.jit(partial(augmentation.mask, axis=axis, count=1, width=width))
    lengths, starts = set(), set()
    for seed in range(10):
        after = mask(jax.random.key(seed), x)
        changed = np.asarray(after) != x
        line = changed.any(axis=3 - axis)
        assert (changed.all(axis=3 - axis) == line).all()  # whole frames or mel bins
        for where in map(np.flatnonzero, line):
            assert not len(where) or np.ptp(where) == len(where) - 1
            lengths.add(len(where))
            starts |= set(where[:1])
        mean = np.broadcast_to(x.mean(axis=(1, 2), keepdims=True), x.shape)
        np.testing.assert_allclose(after[changed], mean[changed], rtol=1e-5)
    assert lengths == set(range(width + 1)) and len(starts) >= 10
    mask = jax.jit(partial(augmentation.mask, axis=axis, count=4, width=100))
    wide = mask(jax.random.key(0), x)
    assert np.isfinite(wide).all() and wide.shape == x.shape


def test_each_clip_has_several_masks_of_its_own(batch):
    after = apply(batch, time_masks=3, time_width=4, mel_masks=2, mel_width=3)["log_mel"]
    changed = after != np.asarray(batch["log_mel"])
    assert 4 < changed.all(axis=2).sum(axis=1).max() <= 12
    assert changed.all(axis=1).sum(axis=1).max() <= 6
    assert len({row.tobytes() for row in changed}) > CLIPS // 2


def test_roll_shifts_each_clip_by_a_shift_of_its_own(batch):
    after = apply(batch, roll=True)["log_mel"]
    shifts = [
        [shift for shift in range(FRAMES) if (np.roll(clip, shift, axis=0) == rolled).all()]
        for clip, rolled in zip(batch["log_mel"], after, strict=True)
    ]
    assert all(len(each) == 1 for each in shifts)
    assert len({each[0] for each in shifts}) > CLIPS // 2


def test_roll_shifts_sound_and_activity_alike(batch):
    """Activities that are the first mel bins stay so, also mixed."""
    timed = batch | {"activity": batch["log_mel"][:, :, :3]}
    after = apply(timed, roll=True, mixup_alpha=0.5)
    np.testing.assert_allclose(after["activity"], after["log_mel"][:, :, :3], rtol=1e-6)
    assert (after["activity"] != np.asarray(timed["activity"])).any()


@pytest.mark.parametrize(("crop", "frames"), [(0.5, 15), (0.67, 10), (0.999, 1)])
@pytest.mark.parametrize("roll", [False, True])
def test_crop_is_a_stretch_of_each_clip_at_a_place_of_its_own(batch, crop, frames, roll):
    """With a circular shift the stretch may go on at the clip's beginning."""
    timed = batch | {"activity": batch["log_mel"][:, :, :3]}
    after = apply(timed, crop=crop, roll=roll)
    assert after["log_mel"].shape == (CLIPS, frames, MELS)
    starts = [
        [start for start in range(FRAMES) if np.array_equal(clip[start : start + frames], part)]
        for clip, part in zip(
            np.tile(batch["log_mel"], (1, 1 + roll, 1)), after["log_mel"], strict=True
        )
    ]
    assert all(len(each) == 1 for each in starts) and len({each[0] for each in starts}) > 5
    np.testing.assert_array_equal(after["activity"], after["log_mel"][:, :, :3])


def test_mixup_mixes_sound_and_labels_with_the_same_weights(batch):
    """A clip whose values are all i, and labels of it, become the same mixture."""
    number = jnp.arange(float(CLIPS)) ** 2
    batch = {"log_mel": jnp.broadcast_to(number[:, None, None], (CLIPS, FRAMES, MELS))}
    batch |= {"scene": jnp.eye(CLIPS), "events": number[:, None]}
    after = apply(batch, mixup_alpha=0.8)
    np.testing.assert_allclose(after["scene"].sum(axis=1), 1, rtol=1e-5)
    assert set((after["scene"] > 0).sum(axis=1)) <= {1, 2}
    mixed = after["scene"] @ number
    for found in (after["events"][:, 0], after["log_mel"][:, 0, 0], after["log_mel"][:, -1, -1]):
        np.testing.assert_allclose(found, mixed, rtol=1e-4)
    assert np.ptp(after["scene"].diagonal()) > 0.3


def test_mixup_weights_follow_the_beta_distribution():
    many = {"log_mel": jnp.zeros((4000, 1, 1)), "scene": jnp.zeros((4000, 1))}
    many["events"] = jnp.float32(jnp.arange(4000) >= 2000)[:, None]
    mixup = jax.jit(partial(augmentation.mixup, alpha=0.3))
    weights = np.asarray(mixup(jax.random.key(0), many)["events"])[:2000, 0]
    weights = weights[weights > 0]  # of clips mixed with one of the other half
    # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1))
    assert np.mean(weights) == pytest.approx(0.5, abs=0.04)
    assert np.var(weights) == pytest.approx(1 / (4 * 1.6), abs=0.015)


def test_the_key_decides(batch):
    fields = {"roll": True, "mixup_alpha": 0.3, "time_masks": 1, "time_width": 9}
    first, again, other = (apply(batch, seed, **fields)["log_mel"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5
