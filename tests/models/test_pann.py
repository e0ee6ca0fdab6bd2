"""The PANN's head in NumPy, its parameters counted, and where it stands among the models."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from ergl_jax import registry
from ergl_jax.errors import InputError
from ergl_jax.models import PANN, Encoder

KEY = jax.random.key(0, impl="rbg")


def config(**encoder):
    encoder = {"architecture": "cnn6", "width_divisor": 32, "dropout": 0.2} | encoder
    return ml_collections.ConfigDict(
        {"name": "pann", "compute_dtype": "float32", "encoder": encoder, "dropout": 0.5}
    )


# PANNs' table of parameters: theirs, less the STFT's and the mel filters'.
@pytest.mark.parametrize(
    ("architecture", "count"), [("cnn14", 80_753_615), ("cnn10", 5_219_279), ("cnn6", 4_837_455)]
)
def test_parameters(architecture, count):
    model = registry.build(
        config(architecture=architecture, width_divisor=1), num_scenes=0, num_events=527
    )
    shapes = jax.eval_shape(lambda: model.init(KEY, jnp.zeros((1, 64, 64)), train=False))
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == count


def test_the_head_is_panns():
    encoder = Encoder("cnn6", width_divisor=32)
    model = PANN(7, encoder)
    x = 10 * jax.random.normal(KEY, (3, 50, 64))
    variables = jax.jit(lambda: model.init(KEY, x, train=False))()
    variables["params"]["fc1"]["bias"] += 0.3
    variables["params"]["fc_audioset"]["bias"] -= 0.2
    output = jax.jit(lambda: model.apply(variables, x, train=False))()
    below = {name: tree["encoder"] for name, tree in variables.items()}
    h = np.asarray(jax.jit(lambda: encoder.apply(below, x, train=False))(), np.float64)
    params = jax.tree.map(np.float64, variables["params"])
    z = h.max(axis=1) + h.mean(axis=1)
    embedding = np.maximum(z @ params["fc1"]["kernel"] + params["fc1"]["bias"], 0)
    logits = embedding @ params["fc_audioset"]["kernel"] + params["fc_audioset"]["bias"]
    assert h.shape == (3, 3, 16) and output.scene_logits is None and output.graph is None
    np.testing.assert_allclose(output.embedding, embedding, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output.event_logits, logits, rtol=1e-4, atol=1e-5)


def test_dropout_is_chance_in_training_alone():
    model = registry.build(config(), num_scenes=0, num_events=7)
    x = jax.random.normal(KEY, (2, 32, 64))
    variables = jax.jit(lambda: model.init(KEY, x, train=False))()

    @jax.jit
    def logits(key):
        output, _ = model.apply(
            variables, x, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
        )
        return output.event_logits

    one, other = (logits(jax.random.key(seed)) for seed in (1, 2))
    assert np.abs(one - other).min() > 0


def test_a_tagger_knows_no_scenes():
    with pytest.raises(InputError, match="'pann' tags events.*start from a PANN by model.init_fr"):
        registry.build(config(), num_scenes=10, num_events=7)
