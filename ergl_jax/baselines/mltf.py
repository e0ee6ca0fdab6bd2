"""MLTF: segments read by a CNN, their order in time by rank pooling, the scene by a linear SVM.

Of "Acoustic scene classification using multi-layer temporal pooling based on convolutional neural
network" (arXiv 1902.10063). Rank pooling describes a sequence by the weights of a linear model
that tells time from what was seen so far. Certain, by its authors' published code: rank pooling
forwards and backwards, in windows of three segments and then over the windows; 8192 numbers from
512; signed square root, L2 norm, linear SVM. Readings of ours: the CNN's pools and its flattened
map; that a clip's logits, while the CNN is trained, are the mean of its segments'; and where
512 * 16 comes from: at each level the positive and the negative part's square roots (twice), then
both directions (twice).

Shapes: B clips, N segments of 50 frames, M mel bins, T steps of a sequence, D features.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.baselines.normalisation import Standardise
from ergl_jax.baselines.shapes import check_input, max_pool, narrowed
from ergl_jax.errors import InputError
from ergl_jax.models.layers import BatchNormReLU, Conv, he_uniform, small_uniform
from ergl_jax.models.output import Output

SEGMENT = 50  # frames
BLOCKS = ((64, (1, 2)), (128, (2, 2)), (256, (2, 1)))  # channels, max pool over (time, frequency)
FEATURES = 512  # of a segment
WINDOW = 3  # segments, of the first level of rank pooling
RIDGE = 1e-3  # of the mean squared norm: keeps a steady clip's weights finite
HEADS = ("cnn", "svm")


def rank_pool(x: jax.Array) -> jax.Array:
    """The weights of a linear model from cumulative means to time: (..., T, D) -> (..., D).

    u with the least sum over t = 1..T of (u m_t - t)² + r |u|², m_t the mean of the first t steps,
    r = RIDGE times the mean of |m_t|². No intercept. Solved through the (T, T) matrix of m's
    products, T being far below D; a sequence of zeros gives zeros.
    """
    time = jnp.arange(1, x.shape[-2] + 1, dtype=x.dtype)
    means = jnp.cumsum(x, axis=-2) / time[:, None]
    highest = jax.lax.Precision.HIGHEST
    products = jnp.einsum("...td,...sd->...ts", means, means, precision=highest)
    ridge = RIDGE * jnp.trace(products, axis1=-2, axis2=-1) / len(time)
    # With zeros alone there would be nothing to solve, and with much less T / ridge is infinite.
    ridge = jnp.maximum(ridge, 1e-30)[..., None, None]
    dual = jnp.linalg.solve(
        products + ridge * jnp.eye(len(time)), jnp.broadcast_to(time[:, None], (*x.shape[:-1], 1))
    )
    return jnp.einsum("...td,...t->...d", means, dual[..., 0], precision=highest)


def rank_pool_both_ways(x: jax.Array) -> jax.Array:
    """Roots of positive and negative parts, pooled in both directions: (..., T, D) -> (..., 4D)."""
    parts = jnp.sqrt(jnp.concatenate([nn.relu(x), nn.relu(-x)], axis=-1))
    return jnp.concatenate([rank_pool(parts), rank_pool(jnp.flip(parts, axis=-2))], axis=-1)


def temporal_features(segments: jax.Array) -> jax.Array:
    """What a clip is to the SVM: (B, N, D) -> (B, 16 D), of length 1 (or 0, of zeros alone).

    Rank pooling in windows of three segments, one segment apart, then over the windows; with fewer
    than three segments there is one window of all.
    """
    window = min(WINDOW, segments.shape[1])
    starts = range(segments.shape[1] - window + 1)
    windows = jnp.stack([segments[:, start : start + window] for start in starts], axis=1)
    x = rank_pool_both_ways(rank_pool_both_ways(windows))
    x = jnp.sign(x) * jnp.sqrt(jnp.abs(x))
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


class MLTF(nn.Module):
    """The scene of a clip from its segments of 50 frames, which follow one another along time.

    Attributes:
      num_scenes: the scenes.
      head: "cnn", to train the CNN: a dense layer `scene` on each segment; or "svm": the trained
        CNN, no gradient of which is taken, its temporal features (`Output.embedding`), and a layer
        `svm` whose logits are the decision values of the SVM that was fitted to them
        (`training.fits.fit_svm`).
      width_divisor: all channels, and a segment's features, are divided by this.
      dropout: before the layer `scene`.
      axis_name: the mapped axis over which BatchNorm shares its statistics.
      dtype: what convolutions are computed in.
    """

    num_scenes: int
    head: str = "cnn"
    width_divisor: int = 1
    dropout: float = 0.5
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, N * 50, M) -> Output with scene logits, and the embedding of "svm"."""
        if self.head not in HEADS:
            raise InputError(f"head={self.head!r} is not one of: {', '.join(HEADS)}")
        batch, frames, mels = log_mel.shape
        if frames % SEGMENT:
            raise InputError(
                f"MLTF reads segments of {SEGMENT} frames, and {frames} frames are not a multiple "
                "of that: use the front end that cuts clips into segments"
            )
        check_input("MLTF", log_mel, frames=SEGMENT, mels=4)
        train_cnn = train and self.head == "cnn"
        features = narrowed(FEATURES, self.width_divisor)
        x = Standardise(name="standardise")(log_mel).reshape(-1, SEGMENT, mels, 1)
        for channels, pool in BLOCKS:
            for _ in range(2):
                x = Conv(narrowed(channels, self.width_divisor), dtype=self.dtype)(x)
                x = BatchNormReLU(self.axis_name, self.dtype)(x, train=train_cnn)
            x = max_pool(x, *pool)
        x = x.reshape(x.shape[0], -1).astype(jnp.float32)  # (B * N, 12 * (M / 4) * 256)
        x = nn.Dense(features, kernel_init=he_uniform, name="fc")(x)
        x = x.reshape(batch, -1, features)  # (B, N, 512)
        if self.head == "cnn":
            x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
            logits = nn.Dense(self.num_scenes, kernel_init=small_uniform, name="scene")(x)
            return Output(logits.mean(axis=1))
        embedding = temporal_features(jax.lax.stop_gradient(x))
        return Output(nn.Dense(self.num_scenes, name="svm")(embedding), embedding=embedding)
