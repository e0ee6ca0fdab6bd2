"""The embedding of each system is what its last layer reads."""

import flax.traverse_util
import jax
import numpy as np
import pytest
from made_systems import drawn, features

from configs import test as test_config
from ergl_jax import registry
from ergl_jax.config import ModelConfig
from ergl_jax.inference.embedding import embedding
from ergl_jax.systems import SYSTEMS

QUICK = ("ergl", "pann", "joint")
ALL = [
    pytest.param(name, variant, marks=() if name in QUICK else pytest.mark.slow)
    for name, system in SYSTEMS.items()
    for variant in system.variants or ("",)
]
# Their last layer is applied to each place, frame or member, and what follows is not linear.
NOT_LINEAR = {("abcnn", ""), ("attention_crnn", ""), ("nnf", "ensemble"), ("pann_scene", "tags")}
NOT_LINEAR |= {("pann", "decision_level_max"), ("pann", "decision_level_att")}


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_the_last_layer_reads_the_embedding(name, variant):
    saved = test_config.get_config().model.to_dict() | {"name": name, "variant": variant}
    saved["encoder"]["width_divisor"] = 8
    config = ModelConfig.from_saved(saved)
    model = registry.build(config, num_scenes=3, num_events=4, frame_seconds=0.01)
    x = features(2, 100, 96)
    variables = drawn(model, x)

    @jax.jit
    def run(variables, x):
        return embedding(model, variables, x), model.apply(variables, x, train=False)

    found, output = jax.device_get(run(variables, x))
    assert found.shape[0] == 2 and found.ndim == 2 and found.dtype == np.float32
    if (name, variant) in NOT_LINEAR:
        return
    params = flax.traverse_util.flatten_dict(variables["params"], sep="/")
    if name == "ergl_dynamic":  # two kernels, of nodes and of edges
        kernels = [params[f"readout/{part}/kernel"] for part in ("nodes", "edges")]
        logits = found @ np.concatenate(kernels) + params["readout/nodes/bias"]
        np.testing.assert_allclose(logits, output.scene_logits, rtol=1e-3, atol=1e-3)
        return
    last = {"pann": "fc_audioset", "joint": "outputs"}.get(name, "scene")
    last = "svm" if variant == "svm" else last
    (kernel,) = (x for path, x in params.items() if f"/{path}".endswith(f"/{last}/kernel"))
    (bias,) = (x for path, x in params.items() if f"/{path}".endswith(f"/{last}/bias"))
    expected = output.event_logits if name == "pann" else output.scene_logits
    if name == "joint":
        expected = np.concatenate([output.scene_logits, output.event_logits], axis=1)
    assert np.ptp(found, axis=0).max() > 1e-3
    np.testing.assert_allclose(found @ kernel + bias, expected, rtol=1e-3, atol=1e-3)
