"""PANNs that locate events: poolings against closed forms, frames, numbers of parameters."""

import jax
import numpy as np
import pytest
from made_systems import apply, count, drawn, features, output_shapes

from ergl_jax.models.decision_level import POOLINGS, DecisionLevelPANN, upsample
from ergl_jax.models.panns import Encoder

ENCODER = Encoder("cnn6", width_divisor=32)


def dense(x, params):
    return x @ np.float64(params["kernel"]) + np.float64(params["bias"])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_heads(pooling):
    model, x = DecisionLevelPANN(7, ENCODER, pooling), 10 * features(3, 90, 64)
    variables = drawn(model, x)
    output = apply(model, variables, x)
    h = np.float64(apply(ENCODER, {k: tree["encoder"] for k, tree in variables.items()}, x))
    padded, params = np.pad(h, ((0, 0), (1, 1), (0, 0))), variables["params"]
    three = np.stack([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]])  # h is not negative
    z = np.maximum(dense(three.max(axis=0) + three.mean(axis=0), params["fc1"]), 0)
    if pooling == "decision_level_max":
        frames = dense(z, params["fc_audioset"])
        events = frames.max(axis=1)
    else:
        frames = dense(z, params["cla"])
        weights = np.exp(dense(z, params["att"]).clip(-10, 10))
        p = (weights / weights.sum(axis=1, keepdims=True) / (1 + np.exp(-frames))).sum(axis=1)
        events = np.log(p / (1 - p))
    assert model.frames_per_step == 16 and frames.shape == (3, 5, 7)
    np.testing.assert_allclose(output.event_logits_by_frame, frames, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(output.event_logits, events, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(output.embedding, z.mean(axis=1), rtol=1e-4, atol=1e-4)
    assert output.scene_logits is None


def test_logits_of_certain_events_stay_finite():
    """Where float32 probabilities are 0 or 1."""
    model, x = DecisionLevelPANN(7, ENCODER, "decision_level_att"), features(2, 64, 64)
    variables = drawn(model, x)
    kernel, bias = (np.zeros_like(variables["params"]["cla"][name]) for name in ("kernel", "bias"))
    for logit in (-60.0, 60.0):
        variables["params"]["cla"] = {"kernel": kernel, "bias": bias + logit}
        np.testing.assert_allclose(apply(model, variables, x).event_logits, logit, rtol=1e-5)


def test_ten_seconds_of_cnn14():
    for pooling, head in (("decision_level_max", 1), ("decision_level_att", 2)):
        model = DecisionLevelPANN(527, Encoder(), pooling)
        shapes = output_shapes(model, 2, 1001, 64)
        assert shapes.event_logits_by_frame.shape == (2, 31, 527)
        assert shapes.event_logits.shape == (2, 527) and shapes.embedding.shape == (2, 2048)
        assert model.frames_per_step == 32
        # Cnn14's, with another head of 2048 inputs and 527 outputs for attention.
        assert count(model, 1, 64, 64) == 80_753_615 + (head - 1) * 2049 * 527


def test_upsampling_repeats_and_fills_the_end_with_the_last():
    by_frame = features(2, 3, 4)
    full = np.asarray(jax.jit(upsample, static_argnums=(1, 2))(by_frame, 7, 2))
    np.testing.assert_array_equal(full, by_frame[:, [0, 0, 1, 1, 2, 2, 2]])
    np.testing.assert_array_equal(upsample(by_frame, 6, 2), full[:, :6])


def test_a_wrong_pooling_is_named():
    with pytest.raises(ValueError, match="pooling='mean' is not one of: decision_level_max, dec"):
        count(DecisionLevelPANN(7, ENCODER, "mean"), 1, 64, 64)
