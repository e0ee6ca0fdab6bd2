"""ABCNN: a CNN with attention over its last map (github.com/EIHW/Attention-based_Atrous_CNN).

Ren et al., "Attention-based Atrous Convolutional Neural Networks: Visualisation and Understanding
Perspectives of Acoustic Scenes", ICASSP 2019: the variant without dilation, pooled after each
block. Layers, sizes, initialisation and loss are those of the published code.

Shapes: B clips, F frames, M mel bins, C channels, S scenes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ergl_jax.baselines.layers import Baseline, MaxPooledBlocks
from ergl_jax.models.layers import he_uniform
from ergl_jax.models.losses import Parts, add
from ergl_jax.models.output import Output


class ABCNN(Baseline):
    """Four blocks of one 5x5 convolution; attention averages log-probabilities over the map.

    o_k = Σ a_k log p_k over the map, each class k with its own attention a_k. The exponentials of
    o need not add up to 1, but softmax(o) ranks scenes as o does.
    """

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) -> Output whose scene logits are o."""
        x = self.normalise(log_mel, frames=16, mels=16)
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


def nll_loss(output: Output, *, scene: jax.Array, events: jax.Array) -> Parts:
    """-o of the true scene; cross entropy, which would normalise o, is another loss."""
    loss = -(scene * output.scene_logits).sum(axis=-1).mean()
    return add(scene_loss=loss, event_loss=jnp.zeros(()))
