"""The PyTorch model that benchmarks time ergl_jax against computes the same numbers."""

from pathlib import Path

import jax
import numpy as np
import pytest
from made_systems import apply, drawn

from configs import ergl
from ergl_jax import registry
from ergl_jax.models.losses import losses

torch = pytest.importorskip("torch")

SCENES, EVENTS, CLIPS = 5, 4, 3


@pytest.fixture
def torch_ergl(load_script):
    return load_script(Path("benchmarks/torch_ergl.py"))


def small(architecture, name="ergl"):
    config = ergl.get_config("synthetic").model
    config.update_from_flattened_dict(
        {
            "name": name,
            "encoder.architecture": architecture,
            "encoder.width_divisor": 32,
            "channels": 8,
            "dropout": 0.0,
        }
    )
    return config


def data(frames):
    rng = np.random.RandomState(0)
    log_mel = np.float32(-40 + 15 * rng.standard_normal((CLIPS, frames, 64)))
    return log_mel, np.arange(CLIPS) % SCENES, np.float32(rng.uniform(size=(CLIPS, EVENTS)))


def test_loss_and_gradients_are_ours(torch_ergl):
    config = small("cnn6")
    log_mel, scene, events = data(128)
    model = registry.build(config, num_scenes=SCENES, num_events=EVENTS)
    variables = drawn(model, log_mel)

    @jax.jit
    @jax.value_and_grad
    def ours(params):
        output, _ = model.apply(
            variables | {"params": params}, log_mel, train=True, mutable=["batch_stats"]
        )
        return losses(output, scene=jax.nn.one_hot(scene, SCENES), events=events)["loss"]

    other = torch_ergl.ERGL(config, num_scenes=SCENES, num_events=EVENTS)
    torch_ergl.load(other, variables)
    expected, gradients = ours(variables["params"])
    found = torch_ergl.loss(other, *map(torch.from_numpy, (log_mel, scene, events)))
    assert abs(found.item() - expected) < 1e-4
    found.backward()
    for name, mine in (
        ("events/shared/kernel", other.events.shared.weight.grad.T),
        ("head/mel/nnm/_Projections_0/key/kernel", other.mel.nnm.weight.grad[8:16].T),
        ("head/gcn0/C/kernel", other.gcn[0].edges.weight.grad.T),
    ):
        theirs = gradients
        for part in name.split("/"):
            theirs = theirs[part]
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-3 * np.abs(theirs).max())


def test_the_whole_pann_is_ours(torch_ergl):
    config = small("cnn14", "pann")
    log_mel, *_ = data(64)
    model = registry.build(config, num_scenes=0, num_events=EVENTS)
    variables = drawn(model, log_mel)
    other = torch_ergl.PANN(config, num_events=EVENTS)
    torch_ergl.load(other, variables)
    with torch.inference_mode():
        found = other.eval()(torch.from_numpy(log_mel)).numpy()
    expected = np.asarray(apply(model, variables, log_mel).event_logits)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
