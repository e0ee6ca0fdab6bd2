"""MTL: events and scenes by multitask learning (github.com/KeisukeImoto/mtl_sed_asc).

Tonami et al., "Joint Analysis of Acoustic Events and Scenes Based on Multitask Learning", WASPAA
2019. Layers, sizes, dropout and the uniform kernels in ±1/sqrt(fan_in) are those of the published
code. Our interpretation: it labels the events of frames and we have labels of clips, so frame
logits are averaged over time; bands are normalised; biases begin at 0 and GRUs as in Flax; in clips
shorter than a time pool all frames are one pool. Its loss is "bce".

Shapes: B clips, F frames, M mel bins.
"""

import flax.linen as nn
import jax

from ergl_jax.baselines.layers import TwoHeads, pytorch_uniform
from ergl_jax.models.output import Output


class MTL(TwoHeads):
    """A shared backbone, a recurrent head for events and a convolutional one for the scene."""

    @nn.compact
    def __call__(self, log_mel: jax.Array, *, train: bool) -> Output:
        """log_mel (B, F, M) -> Output with scene and event logits."""
        scene_logits, h = self.heads(log_mel, train=train)
        h = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(h))
        # The mean of frame logits: it commutes with the last layer and is cheaper before it.
        event_logits = nn.Dense(self.num_events, kernel_init=pytorch_uniform, name="events")(
            h.mean(axis=1)
        )
        return Output(scene_logits, event_logits)
