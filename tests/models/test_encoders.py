"""PANNs' other encoders: shapes, numbers of parameters, and use in other models.

data_prep/test_ported_panns.py compares them with PyTorch's layers.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from made_systems import KEY, apply, count, drawn, features, init, output_shapes

from configs import test as test_config
from ergl_jax import registry
from ergl_jax.audio import FRONT_ENDS, log_mel
from ergl_jax.config import ModelConfig
from ergl_jax.models.encoders import ENCODERS
from ergl_jax.models.panns import PANN
from ergl_jax.models.resnet import ResidualBlock

BINS = {"wavegram_logmel_cnn14": 64 + 320}
OTHERS = [name for name in ENCODERS if not name.startswith("cnn")]


# PANNs, table XII: numbers of parameters, less those of the STFT and the mel filters.
@pytest.mark.parametrize(
    ("architecture", "channels", "size"),
    [
        ("resnet22", 2048, 63_675_087),
        ("resnet38", 2048, 73_783_247),
        ("mobilenetv1", 1024, 4_796_303),
        ("wavegram_logmel_cnn14", 2048, 81_065_487),
    ],
)
def test_full_size(architecture, channels, size):
    encoder = ENCODERS[architecture](architecture)
    bins = BINS.get(architecture, 64)
    assert count(PANN(527, encoder), 1, 64, bins) == size
    h = output_shapes(encoder, 2, 1001, bins)  # 10 s
    assert h.shape == (2, 31, channels) and h.dtype == jnp.float32


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [name for name in OTHERS if name != "resnet38"])
def test_ergl_trains_with_it(architecture):
    """All parameters have finite gradients, and all statistics change."""
    saved = test_config.get_config().model.to_dict()
    divisor = 4 if architecture in BINS else 16
    saved["encoder"].update(architecture=architecture, width_divisor=divisor)
    model = registry.build(ModelConfig.from_saved(saved), num_scenes=3, num_events=4)
    x = 10 * features(4, 128, BINS.get(architecture, 64))
    variables = init(model, *x.shape)

    @jax.jit
    def run(params, batch_stats):
        def loss(params):
            output, changed = model.apply(
                {"params": params, "batch_stats": batch_stats},
                x,
                train=True,
                rngs={"dropout": KEY},
                mutable=["batch_stats"],
            )
            return (output.scene_logits**2).mean(), changed["batch_stats"]

        return jax.grad(loss, has_aux=True)(params)

    gradients, changed = run(variables["params"], variables["batch_stats"])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients["encoder"]))
    same = jax.tree.map(np.array_equal, changed, variables["batch_stats"])
    assert not any(jax.tree.leaves(same["encoder"]))


def test_a_residual_block_begins_as_the_identity():
    x = np.abs(features(2, 8, 6, 4))
    block = ResidualBlock(4, pool=False, dropout=0.0)
    variables = jax.jit(lambda: block.init(KEY, x, train=False))()
    np.testing.assert_array_equal(apply(block, variables, x), x)


def test_where_it_halves_a_residual_block_pools():
    """The last frame and bin of an odd number are left out."""
    x = features(2, 9, 7, 4)
    for channels in (4, 6):
        block = ResidualBlock(channels, pool=True, dropout=0.0)
        variables = drawn(block, x)
        assert ("shortcut" in variables["params"]) == (channels != 4)
        y = apply(block, variables, x)
        np.testing.assert_array_equal(y, apply(block, variables, x[:, :8, :6]))
        assert y.shape == (2, 4, 3, channels)


@pytest.mark.parametrize("architecture", OTHERS)
def test_a_wrong_argument_is_named(architecture):
    kind, bins = ENCODERS[architecture], BINS.get(architecture, 64)
    for encoder, shape, message in (
        (kind(architecture, 3), (64, bins), "width_divisor=3 does not divide the"),
        (kind(architecture), (31, bins), "at least 32 frames"),
        (kind("cnn14"), (64, bins), "architecture='cnn14' is not one of: "),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            count(encoder, 1, *shape)


def test_the_wavegram_needs_its_front_end():
    encoder = ENCODERS["wavegram_logmel_cnn14"]("wavegram_logmel_cnn14")
    with pytest.raises(ValueError, match="use the front end panns_wavegram"):
        count(encoder, 1, 64, 64)
    front_end = FRONT_ENDS["panns_wavegram"]
    waveform = features(2, 3200 + 7)
    x = np.asarray(log_mel(waveform, front_end))
    assert x.shape == (2, *front_end.shape(3207 / 32000)) == (2, 11, 384)
    np.testing.assert_array_equal(x[..., :64], log_mel(waveform, FRONT_ENDS["panns_32k"]))
    np.testing.assert_array_equal(x[:, :10, 64:].reshape(2, 3200), waveform[:, :3200])
    np.testing.assert_array_equal(x[:, 10, 64:71], waveform[:, 3200:])
    assert not x[:, 10, 71:].any()
