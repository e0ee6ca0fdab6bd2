"""MLTF: a CNN reads segments, rank pooling their order in time, a linear SVM the scene.

"Acoustic scene classification using multi-layer temporal pooling based on convolutional neural
network" (arXiv 1902.10063). Rank pooling describes a sequence by the weights of a linear model that
predicts time from the features so far. From the published code: rank pooling forwards and
backwards, in windows of three segments and then over the windows; 8192 features of a clip from 512
of a segment; signed square root, L2 norm, linear SVM. Our interpretation: the CNN's pools and its
flattened map; a clip's logits in CNN training are the mean of its segments'; and 8192 = 512 * 16,
as each of the two levels takes the square roots of positive and negative parts and both directions.

Shapes: B clips, N segments of 50 frames, M mel bins, T steps of a sequence, D features.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.baselines.layers import Baseline, max_pool, narrowed
from ergl_jax.models.layers import BatchNormReLU, Conv, he_uniform, small_uniform
from ergl_jax.models.output import Output

SEGMENT = 50  # frames
BLOCKS = ((64, (1, 2)), (128, (2, 2)), (256, (2, 1)))  # channels, max pool over (time, frequency)
FEATURES = 512  # of a segment
WINDOW = 3  # segments, of the first level of rank pooling
RIDGE = 1e-3  # of the mean squared norm: keeps the weights of a steady clip finite


def rank_pool(x: jax.Array) -> jax.Array:
    """The weights of a linear model from cumulative means to time: (..., T, D) -> (..., D).

    u that minimises the sum over t = 1..T of (u m_t - t)² + r |u|², m_t the mean of the first t
    steps, r = RIDGE times the mean of |m_t|². No intercept. Solved in the dual, a (T, T) system,
    since T is far below D; a sequence of zeros gives zeros.
    """
    time = jnp.arange(1, x.shape[-2] + 1, dtype=x.dtype)
    means = jnp.cumsum(x, axis=-2) / time[:, None]
    highest = jax.lax.Precision.HIGHEST
    products = jnp.einsum("...td,...sd->...ts", means, means, precision=highest)
    ridge = RIDGE * jnp.trace(products, axis1=-2, axis2=-1) / len(time)
    # A sequence of zeros would be singular; with much less than this, T / ridge is infinite.
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
    """The SVM's features of a clip: (B, N, D) -> (B, 16 D), of length 1 (0 if all are zeros).

    Rank pooling in windows of three segments, one segment apart, then over the windows; fewer than
    three segments are one window.
    """
    window = min(WINDOW, segments.shape[1])
    starts = range(segments.shape[1] - window + 1)
    windows = jnp.stack([segments[:, start : start + window] for start in starts], axis=1)
    x = rank_pool_both_ways(rank_pool_both_ways(windows))
    x = jnp.sign(x) * jnp.sqrt(jnp.abs(x))
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


class MLTF(Baseline):
    """The scene of a clip from its consecutive segments of 50 frames.

    Attributes:
      head: "cnn" to train the CNN, with a dense layer `scene` on each segment; or "svm": the fixed
        CNN, its temporal features (`Output.embedding`) and the layer `svm`, whose logits are the
        decision values of the linear SVM fitted to them (recipes/svm.py).
      dropout: before the layer `scene`.
    """

    head: str = "cnn"
    dropout: float = 0.5

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, N * 50, M) -> Output with scene logits, and the embedding of "svm"."""
        if self.head not in ("cnn", "svm"):
            raise ValueError(f'head={self.head!r} is neither "cnn" nor "svm"')
        batch, frames, mels = log_mel.shape
        if frames % SEGMENT:
            raise ValueError(f"log_mel has {frames} frames, not a multiple of {SEGMENT}")
        train_cnn = train and self.head == "cnn"
        features = narrowed(FEATURES, self.width_divisor)
        x = self.normalise(log_mel, frames=SEGMENT, mels=4).reshape(-1, SEGMENT, mels, 1)
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
