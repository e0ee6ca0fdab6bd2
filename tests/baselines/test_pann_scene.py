"""A PANN as scene classifier: it takes a PANN's weights by path, and trains them or not."""

import jax
import numpy as np
import pytest
from made_systems import apply, count, features, init, leaves, output_shapes, trained_once

from ergl_jax.baselines.pann_scene import PANNScene
from ergl_jax.models import PANN, Encoder

PANN_PARAMETERS = 80_753_615  # Cnn14's, by PANNs' table, less STFT and mel filters
ENCODER = Encoder("cnn6", width_divisor=64)


def with_pann(model, x):
    """Variables of the model, as far as they go those of a random `PANN`, and that PANN's own."""
    pann = init(PANN(7, ENCODER), *x.shape)
    rng = np.random.default_rng(0)
    pann = jax.tree.map(lambda a: a + np.float32(0.1 * rng.uniform(size=a.shape)), pann)
    mine = init(model, *x.shape)
    merged = {
        part: {name: pann[part].get(name, tree) for name, tree in trees.items()}
        for part, trees in mine.items()
    }
    return merged, pann


@pytest.mark.parametrize(
    ("head_on", "parameters"),
    [
        ("embedding", PANN_PARAMETERS - 2049 * 527 + 2049 * 10),
        ("tags", PANN_PARAMETERS + 528 * 10),
    ],
)
def test_shapes_and_parameters(head_on, parameters):
    model = PANNScene(10, Encoder("cnn14"), head_on=head_on)
    assert count(model, 1, 64, 64) == parameters
    output = output_shapes(model, 2, 1001, 64)
    assert output.scene_logits.shape == (2, 10) and output.embedding.shape == (2, 2048)
    assert output.event_logits is None


@pytest.mark.parametrize("head_on", ["embedding", "tags"])
def test_the_scene_layer_reads_what_the_pann_gives(head_on):
    model, x = PANNScene(3, ENCODER, num_events=7, head_on=head_on), 10 * features(2, 32, 64)
    variables, pann = with_pann(model, x)
    tagged = apply(PANN(7, ENCODER), pann, x)
    seen = tagged.embedding if head_on == "embedding" else jax.nn.sigmoid(tagged.event_logits)
    layer = variables["params"]["scene"]
    output = apply(model, variables, x)
    np.testing.assert_allclose(output.embedding, tagged.embedding, rtol=1e-5, atol=1e-6)
    want = seen @ layer["kernel"] + layer["bias"]
    np.testing.assert_allclose(output.scene_logits, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head_on", ["embedding", "tags"])
@pytest.mark.parametrize("frozen", [False, True])
def test_what_trains(head_on, frozen):
    model = PANNScene(3, ENCODER, num_events=7, head_on=head_on, frozen=frozen, dropout=0.2)
    x = 10 * features(4, 32, 64)
    variables, _ = with_pann(model, x)
    gradient, updated = trained_once(model, variables, x, np.array([0, 2, 1, 0]))
    found = leaves(gradient)
    assert all(np.isfinite(a).all() for a in found.values())
    moved = {path.split("/")[0] for path, a in found.items() if np.abs(a).max() > 0}
    pann = {"encoder", "fc1"} | ({"fc_audioset"} if head_on == "tags" else set())
    assert moved == {"scene"} | (set() if frozen else pann)
    before, after = leaves(variables["batch_stats"]), leaves(updated)
    same = all(np.array_equal(before[path], after[path]) for path in before)
    assert same == frozen
