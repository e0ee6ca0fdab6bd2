"""Circular shift, random crop, mixup and SpecAugment on the device; the paper uses none of them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ergl_jax.config import AugmentConfig

Batch = dict[str, jax.Array]


def make_augment(config: AugmentConfig) -> Callable[[jax.Array, Batch], Batch]:
    """The function (key, batch) -> batch that a `config.augment` describes.

    A batch has log_mel (B, F, M), scene (B, scenes), events (B, n) and maybe activity (B, F, n).
    Order: circular shift and crop in time, of log_mel and activity alike; mixup; SpecAugment (arXiv
    1904.08779; masks are filled with the clip's mean). The crop leaves fewer frames than F.
    """

    def augment(key: jax.Array, batch: Batch) -> Batch:
        roll, mix, time, mel = jax.random.split(key, 4)
        timed = batch.keys() & {"log_mel", "activity"}
        if config.roll:
            batch = batch | {name: circular_shift(roll, batch[name]) for name in timed}
        if config.crop > 0:
            place = None if config.roll else jax.random.fold_in(key, 4)
            batch = batch | {name: crop(place, batch[name], config.crop) for name in timed}
        if config.mixup_alpha > 0:
            batch = mixup(mix, batch, config.mixup_alpha)
        x = batch["log_mel"]
        x = mask(time, x, axis=1, count=config.time_masks, width=config.time_width)
        x = mask(mel, x, axis=2, count=config.mel_masks, width=config.mel_width)
        return batch | {"log_mel": x}

    return augment


def circular_shift(key: jax.Array, x: jax.Array) -> jax.Array:
    """Rolls each clip of x (B, F, M) along time by a random shift of its own."""
    shifts = jax.random.randint(key, x.shape[:1], 0, x.shape[1])
    return jax.vmap(lambda clip, shift: jnp.roll(clip, shift, axis=0))(x, shifts)


def cropped_frames(frames: int, share: float) -> int:
    """How many of a clip's frames are left if `share` of them is cut away."""
    return max(1, round(frames * (1 - share)))


def crop(key: jax.Array | None, x: jax.Array, share: float) -> jax.Array:
    """Cuts `share` of each clip's frames away: (B, F, M) -> (B, (1 - share) F, M).

    The rest begins at a random frame of each clip, or without `key` at its first frame, which is
    random enough after a circular shift.
    """
    size = cropped_frames(x.shape[1], share)
    if key is None:
        return x[:, :size]
    starts = jax.random.randint(key, x.shape[:1], 0, x.shape[1] - size + 1)
    return jax.vmap(lambda clip, start: jax.lax.dynamic_slice_in_dim(clip, start, size))(x, starts)


def mixup(key: jax.Array, batch: Batch, alpha: float) -> Batch:
    """Mixes each clip with another of the batch: sound and labels (arXiv 1710.09412).

    The weight of the first clip is drawn from Beta(alpha, alpha), once for each pair.
    """
    partner_key, weight_key = jax.random.split(key)
    clips = batch["log_mel"].shape[0]
    partner = jax.random.permutation(partner_key, clips)
    weight = jax.random.beta(weight_key, alpha, alpha, (clips,))

    def mix(x: jax.Array) -> jax.Array:
        lam = weight.reshape(clips, *([1] * (x.ndim - 1)))
        return lam * x + (1 - lam) * x[partner]

    return jax.tree.map(mix, batch)


def mask(key: jax.Array, x: jax.Array, *, axis: int, count: int, width: int) -> jax.Array:
    """Fills `count` stripes of 0 to `width` frames (axis 1) or mel bins (axis 2) of x (B, F, M).

    Each clip has stripes of its own, filled with its mean.
    """
    size, mean = x.shape[axis], x.mean(axis=(1, 2), keepdims=True)
    position = jnp.arange(size)
    for stripe in range(count):
        width_key, start_key = jax.random.split(jax.random.fold_in(key, stripe))
        widths = jax.random.randint(width_key, x.shape[:1], 0, min(width, size) + 1)
        starts = jax.random.randint(start_key, x.shape[:1], 0, size - widths + 1)
        hidden = (position >= starts[:, None]) & (position < (starts + widths)[:, None])
        x = jnp.where(jnp.expand_dims(hidden, 3 - axis), mean, x)
    return x
