"""NNF_CNNEns: CNNs on log-mel features and on their nearest-neighbour-filtered version, combined.

Nguyen and Pernkopf, "Acoustic scene classification using a convolutional neural network ensemble
and nearest neighbor filters", DCASE 2018: the filter, and an ensemble of CNNs on filtered and
unfiltered features. Our interpretation: the CNN (four blocks of two 3x3 convolutions with BatchNorm
and ReLU, a 2x2 max pool after each, the mean over the map, dropout, one dense layer), separate
first blocks for the two inputs of "both", and six members with weights by greedy selection on
validation.

Shapes: B clips, F frames, M mel bins, k neighbours, S scenes.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.baselines.layers import Baseline, NormaliseBands, check_input, max_pool, narrowed
from ergl_jax.models.layers import small_uniform
from ergl_jax.models.output import Output
from ergl_jax.models.panns import ConvBlock

CHANNELS = (32, 64, 128, 256)
INPUTS = {"mel": ("mel",), "filtered": ("filtered",), "both": ("mel", "filtered")}
SHORTEST = 2 ** len(CHANNELS)  # frames and mel bins, each halved once a block


def nearest_neighbour_filter(x: jax.Array) -> jax.Array:
    """Each frame as the mean of its k nearest frames: (B, F, M) -> (B, F, M), F at least 2.

    By Euclidean distance, without the frame itself; k = 2 ceil(sqrt(F - 1)), at most F - 1. Equals
    librosa's `decompose.nn_filter` with mode="distance"; its default mode takes k + 2 neighbours
    and drops two of them whatever their distance.
    """
    frames = x.shape[1]
    k = min(frames - 1, 2 * math.ceil(math.sqrt(frames - 1)))
    highest = jax.lax.Precision.HIGHEST
    # |a - b|² = |a|² + |b|² - 2 ab, |a|² being the same for all b. Centred to keep precision.
    centred = x - x.mean(axis=1, keepdims=True)
    products = jnp.einsum("bfm,bgm->bfg", centred, centred, precision=highest)
    similarity = 2 * products - jnp.square(centred).sum(-1)[:, None, :]
    itself = jnp.eye(frames, dtype=bool)
    _, nearest = jax.lax.top_k(jnp.where(itself, -jnp.inf, similarity), k)  # (B, F, k)
    # A product with zeros and ones sums the chosen frames; gathering (B, F, k, M) would be larger.
    clips = jnp.arange(x.shape[0])[:, None, None]
    rows = jnp.arange(frames)[None, :, None]
    chosen = jnp.zeros_like(similarity).at[clips, rows, nearest].set(1.0)
    return jnp.einsum("bfg,bgm->bfm", chosen, x, precision=highest) / k


class NNFCNN(Baseline):
    """One member of the ensemble, a VGG-like CNN.

    Attributes:
      input: "mel", "filtered", or "both": each with a first block of its own, concatenated before
        the second.
      dropout: before the scene layer.
    """

    input: str = "mel"
    dropout: float = 0.5

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) -> Output with scene logits alone."""
        if self.input not in INPUTS:
            raise ValueError(f"input={self.input!r} is not one of: {', '.join(INPUTS)}")
        check_input(log_mel, frames=SHORTEST, mels=SHORTEST)
        first, *others = (narrowed(channels, self.width_divisor) for channels in CHANNELS)
        normalise = NormaliseBands(name="standardise")
        stems = []
        for source in INPUTS[self.input]:
            # Filtered before it is normalised, so that both are on the same scale.
            x = nearest_neighbour_filter(log_mel) if source == "filtered" else log_mel
            stems.append(self._block(normalise(x)[..., None], first, f"{source}_stem", train))
        x = jnp.concatenate(stems, axis=-1)  # (B, F / 2, M / 2, 32 or 64)
        for index, channels in enumerate(others):
            x = self._block(x, channels, f"block{index + 2}", train)
        x = x.astype(jnp.float32).mean(axis=(1, 2))  # (B, 256)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Output(nn.Dense(self.num_scenes, kernel_init=small_uniform, name="scene")(x))

    def _block(self, x: jax.Array, channels: int, name: str, train: bool) -> jax.Array:
        """(B, F, M, C) -> (B, F // 2, M // 2, channels)."""
        block = ConvBlock(
            channels, pool=False, axis_name=self.axis_name, dtype=self.dtype, name=name
        )
        return max_pool(block(x, train=train), 2, 2)


class NNFEnsemble(Baseline):
    """The weighted mean of the scene probabilities of its members, which are trained one by one.

    Member i is the submodule `member{i}`. The weights add up to 1 and are selected on validation
    (recipes/ensemble_selection.py), not trained; they are among the running statistics, so that a
    bundle holds them.

    Attributes:
      members: the `input` of each.
    """

    members: tuple[str, ...] = ("mel", "mel", "filtered", "filtered", "both", "both")

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) -> Output with scene logits, the logarithms of the mean.

        The embedding holds the members' probabilities: (B, members * S).
        """
        log_probabilities = []
        for index, source in enumerate(self.members):
            member = NNFCNN(
                num_scenes=self.num_scenes,
                width_divisor=self.width_divisor,
                axis_name=self.axis_name,
                dtype=self.dtype,
                input=source,
                name=f"member{index}",
            )
            logits = member(log_mel, train=train).scene_logits
            log_probabilities.append(nn.log_softmax(logits))
        count = len(self.members)
        weights = self.variable("batch_stats", "weights", lambda: jnp.full(count, 1 / count))
        together = jnp.stack(log_probabilities)  # (members, B, S)
        each = jnp.concatenate([jnp.exp(x) for x in log_probabilities], axis=-1)
        mean = nn.logsumexp(together, axis=0, b=weights.value[:, None, None])
        return Output(mean, embedding=each)
