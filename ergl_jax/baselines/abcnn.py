"""ABCNN: a CNN with attention over its last map (github.com/EIHW/Attention-based_Atrous_CNN).

Ren et al., "Attention-based Atrous Convolutional Neural Networks: Visualisation and Understanding
Perspectives of Acoustic Scenes", ICASSP 2019: the one without dilation, pooled after each block.
Certain, from its published code: layers, sizes, initialisation, and that what is averaged are the
logarithms of class probabilities, o_k = Σ a_k log p_k over the map, each class with its own
attention. These o are no log-probabilities of one distribution, as their exponentials need not add
up to 1, and the code trains with -o of the true scene. So `scene_logits` are o as they are, for the
loss "nll": a cross entropy, which normalises them, would be another loss. The softmax of o ranks
scenes as o does.

Shapes: B clips, F frames, M mel bins, C channels, S scenes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.baselines.normalisation import Standardise
from ergl_jax.baselines.shapes import check_input
from ergl_jax.baselines.surrey import MaxPooledBlocks
from ergl_jax.models.layers import he_uniform
from ergl_jax.models.output import Output


class ABCNN(nn.Module):
    """Four blocks of one 5x5 convolution; classes averaged over the map by attention.

    Attributes: as of `SurreyCNN`.
    """

    num_scenes: int
    width_divisor: int = 1
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) -> Output whose scene logits are for the loss "nll"."""
        check_input("ABCNN", log_mel, frames=16, mels=16)
        x = Standardise(name="standardise")(log_mel)
        x = MaxPooledBlocks(5, 1, self.width_divisor, self.axis_name, self.dtype, name="blocks")(
            x, train=train
        )
        x = x.reshape(x.shape[0], -1, x.shape[-1]).astype(jnp.float32)  # (B, F / 16 * M / 16, C)
        # Dense layers at each place: the published 1x1 convolutions.
        classes = nn.Dense(self.num_scenes, kernel_init=he_uniform, name="scene")(x)
        attention = nn.Dense(self.num_scenes, kernel_init=nn.initializers.zeros, name="attention")(
            x
        )
        attention = jnp.clip(nn.sigmoid(attention) + 0.1, 0.1, 0.9)
        attention /= attention.sum(axis=1, keepdims=True)
        return Output((attention * nn.log_softmax(classes)).sum(axis=1))  # (B, S)
