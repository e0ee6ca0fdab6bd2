"""What holds for every compared system with layers of its own: shapes, errors, gradients."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from made_systems import KEY, apply, features, size

from ergl_jax import registry
from ergl_jax.baselines.abcnn import ABCNN
from ergl_jax.baselines.attention_crnn import AttentionCRNN
from ergl_jax.baselines.conditional import Conditional
from ergl_jax.baselines.dcase2018 import DCASE2018
from ergl_jax.baselines.joint import Joint
from ergl_jax.baselines.layers import NormaliseBands
from ergl_jax.baselines.mltf import MLTF
from ergl_jax.baselines.mtl import MTL
from ergl_jax.baselines.nnf import NNFCNN, NNFEnsemble
from ergl_jax.baselines.rgasc import RGASC
from ergl_jax.baselines.surrey import SurreyCNN
from ergl_jax.baselines.wavelet_crnn import WaveletCRNN


class Case(NamedTuple):
    model: Callable[..., nn.Module]
    shape: tuple[int, int]  # frames and bands of the published features
    shortest: tuple[int, int]
    losses: tuple[str, ...] = ("scene",)
    narrow: int = 8  # width_divisor of the models that run here
    events: int = 0


BOTH = partial(NNFCNN, input="both")
ENSEMBLE = partial(NNFEnsemble, members=("mel", "filtered", "both"))
SVM, WAVELET = partial(MLTF, head="svm"), partial(WaveletCRNN, first_order=80)
CASES = {
    "dcase2018": Case(DCASE2018, (500, 40), (5, 20), narrow=4),
    "surrey": Case(SurreyCNN, (320, 64), (16, 16)),
    "abcnn": Case(ABCNN, (320, 64), (16, 16), ("nll",)),
    "mtl": Case(MTL, (500, 64), (1, 32), ("bce",), events=25),
    "conditional": Case(Conditional, (500, 64), (1, 32), ("conditional",), events=25),
    "joint": Case(Joint, (500, 64), (1, 32), ("joint",), events=25),
    "rgasc": Case(RGASC, (320, 64), (32, 32), ("rgasc_log", "rgasc_prob"), 32, events=25),
    "attention_crnn": Case(AttentionCRNN, (320, 64), (1, 16), narrow=32),
    "nnf": Case(NNFCNN, (500, 128), (16, 16), narrow=16),
    "nnf_both": Case(BOTH, (500, 128), (16, 16), narrow=16),
    "nnf_ensemble": Case(ENSEMBLE, (64, 128), (16, 16)),
    "mltf": Case(MLTF, (650, 120), (50, 4), narrow=16),
    "mltf_svm": Case(SVM, (650, 120), (50, 4)),
    "wavelet_crnn": Case(WAVELET, (54, 480), (1, 81), narrow=32),
}


def make(case, divisor, scenes=10, **fields):
    if case.events:
        fields["num_events"] = case.events
    return case.model(num_scenes=scenes, width_divisor=divisor, **fields)


def shapes(model, frames, mels):
    """Output and variables of two clips, as shapes."""
    x = jnp.zeros((2, frames, mels))
    return jax.eval_shape(lambda: model.init_with_output(KEY, x, train=False))


@pytest.mark.parametrize("name", CASES)
def test_shapes_and_types(name):
    """Outputs and variables are float32, also where convolutions are computed in bfloat16."""
    case = CASES[name]
    output, variables = shapes(make(case, 1, dtype=jnp.bfloat16), *case.shape)
    assert output.scene_logits.shape == (2, 10) and output.scene_logits.dtype == jnp.float32
    assert (output.event_logits is not None) == bool(case.events)
    if case.events:
        assert output.event_logits.shape == (2, 25) and output.event_logits.dtype == jnp.float32
    by_scene = output.event_logits_by_scene
    assert by_scene.shape == (2, 10, 25) if name == "conditional" else by_scene is None
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    if name != "nnf_ensemble":  # whose members have their own
        # Where training looks for it.
        assert variables["batch_stats"]["standardise"]["mean"].shape == (case.shape[1],)


def test_dcase_2018_counts_as_keras_does():
    _, variables = shapes(DCASE2018(10), 500, 40)
    statistics = dict(variables["batch_stats"])
    del statistics["standardise"]  # Keras' features are normalised already
    assert (size(variables["params"]), size(statistics)) == (116_022, 96)
    assert variables["params"]["BatchNorm_0"]["scale"].shape == (40,)  # rows, not channels


@pytest.mark.parametrize("name", CASES)
def test_small_clips_and_divisors_that_do_not_divide_are_errors(name):
    case = CASES[name]
    frames, mels = case.shortest
    model = make(case, case.narrow)
    assert shapes(model, frames, mels)[0].scene_logits.shape == (2, 10)
    with pytest.raises(ValueError, match="at least .* mel bins|none of second order"):
        shapes(model, frames, mels - 1)
    if frames > 1 and case.model is not MLTF and name != "mltf_svm":
        with pytest.raises(ValueError, match=f"at least {frames} frames and {mels} mel bins"):
            shapes(model, frames - 1, mels)
    with pytest.raises(ValueError, match="width_divisor=3 does not divide"):
        shapes(make(case, 3), *case.shape)


def test_bands_are_normalised():
    x, mean, std = features(2, 3, 4), features(4, seed=1), np.exp(features(4, seed=2))
    variables = {"batch_stats": {"mean": mean, "deviation": std}}
    found = NormaliseBands().apply(variables, x * std + mean)
    np.testing.assert_allclose(found, x, rtol=0, atol=1e-5)


def drawn(model, shape):
    """Variables by which signals neither grow nor fade."""
    rng = np.random.default_rng(0)

    def draw(path, x):
        if "kernel" in path[-1].key:
            return np.float32(np.sqrt(2 / np.prod(x.shape[:-1])) * rng.normal(size=x.shape))
        # Biases that keep hidden units on the side of ReLU that learns.
        start = {"bias": 0.3, "mean": 0.0, "weights": 1 / 3}.get(path[-1].key, 1.0)
        return np.full(x.shape, start, np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes(model, *shape)[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name != "mltf_svm"])
def test_every_weight_learns(name):
    case = CASES[name]
    frames, mels = max(case.shortest[0], 32), max(case.shortest[1], 32)
    frames = 100 if name == "mltf" else frames
    model = make(case, case.narrow, scenes=3)
    variables = drawn(model, (frames, mels))
    rng = np.random.default_rng(0)
    x = features(4, frames, mels)
    batch = {"scene": rng.dirichlet(np.ones(3), 4).astype(np.float32)}  # as mixup makes them
    batch["events"] = rng.random((4, case.events), np.float32)
    relations = {"scene": np.arange(4) % 3, "num_scenes": 3, "threshold": 0.5}
    losses = [registry.make_loss(loss, events=batch["events"], **relations) for loss in case.losses]

    @jax.jit
    def grads(params):
        def total(params):
            output, changed = model.apply(
                variables | {"params": params},
                x,
                train=True,
                rngs={"dropout": KEY},
                mutable=["batch_stats"],
            )
            return sum(f(output, **batch)["loss"] for f in losses), changed["batch_stats"]

        return jax.grad(total, has_aux=True)(params)

    gradients, statistics = grads(variables["params"])
    for path, gradient in flatten_dict(gradients, sep="/").items():
        assert np.isfinite(gradient).all(), path
        # BatchNorm by channel removes what the convolution's bias adds.
        idle = case.events and path.endswith("Conv_0/bias")
        assert idle or np.abs(gradient).max() > 0, path
    before = flatten_dict(variables["batch_stats"], sep="/")
    for path, after in flatten_dict(statistics, sep="/").items():
        fixed = "standardise/" in path or path == "weights"
        assert np.array_equal(after, before[path]) == fixed, path


def test_the_event_logits_of_a_certain_scene_are_those_given_that_scene():
    model = make(CASES["conditional"], 8, scenes=3)
    variables, x = flatten_dict(drawn(model, (64, 40)), sep="/"), features(4, 64, 40)
    name = "params/scene_head/scene/bias"
    for scene in range(3):
        variables[name] = 1e4 * np.eye(3, dtype=np.float32)[scene]
        output = apply(model, unflatten_dict(variables, sep="/"), x)
        np.testing.assert_allclose(
            output.event_logits, output.event_logits_by_scene[:, scene], rtol=0, atol=1e-6
        )
    assert np.ptp(output.event_logits_by_scene, axis=1).max() > 1e-3  # the scene matters
