"""The compared systems and their losses against PyTorch, by the same weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from ergl_jax.baselines.abcnn import ABCNN
from ergl_jax.baselines.dcase2018 import DCASE2018
from ergl_jax.baselines.losses import Relations
from ergl_jax.baselines.mtl import MTL
from ergl_jax.baselines.surrey import SurreyCNN
from ergl_jax.models import Output
from ergl_jax.registry import LOSSES, RELATED

torch = pytest.importorskip("torch")

from equivalence import torch_systems  # noqa: E402

F = torch.nn.functional
CLIPS, FRAMES, MELS, SCENES, EVENTS = 4, 60, 64, 5, 3
SYSTEMS = {
    "DCASE2018": (DCASE2018(SCENES, 4, dropout=0.0), torch_systems.DCASE2018),
    "Surrey": (SurreyCNN(SCENES, 16), torch_systems.Surrey),
    "ABCNN": (ABCNN(SCENES, 16), torch_systems.ABCNN),
    "MTL": (MTL(SCENES, 8, num_events=EVENTS, dropout=0.0), torch_systems.MTL),
}


def drawn(model):
    """Variables that are nowhere 0 or 1, so that none can take another's place unseen."""
    rng = np.random.default_rng(0)

    def draw(path, x):
        name = path[-1].key
        if name == "kernel":
            # Far from uniform attention, so that some of it is clipped.
            gain = 20 if path[-2].key == "attention" else 2
            values = np.sqrt(gain / np.prod(x.shape[:-1])) * rng.normal(size=x.shape)
        elif name in ("scale", "var", "deviation"):
            values = rng.uniform(0.5, 2.0, x.shape)
        else:
            values = 0.3 * rng.normal(size=x.shape)
        return np.float32(values)

    x = jnp.zeros((1, FRAMES, MELS))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def both(name, train):
    """Outputs, the input's gradient and the running means of both sides: dicts of arrays."""
    model, reference = SYSTEMS[name]
    variables = drawn(model)
    rng = np.random.default_rng(1)
    x = np.float32(rng.normal(size=(CLIPS, FRAMES, MELS)))
    weights = [np.float32(rng.normal(size=(CLIPS, k))) for k in (SCENES, EVENTS)]

    @jax.jit
    def ours(x):
        def objective(x):
            output, changed = model.apply(variables, x, train=train, mutable=["batch_stats"])
            found = [y for y in (output.scene_logits, output.event_logits) if y is not None]
            total = sum((y * w).sum() for y, w in zip(found, weights, strict=False))
            return total, (found, changed["batch_stats"])

        gradient, (found, statistics) = jax.grad(objective, has_aux=True)(x)
        return found, gradient, statistics

    outputs, gradient, statistics = ours(x)
    found = {f"output {k}": y for k, y in enumerate(outputs)} | {"gradient": gradient}
    means = {k: v for k, v in flatten_dict(statistics, sep="/").items() if k.endswith("/mean")}
    means.pop("standardise/mean")

    other = reference(variables, model.width_divisor, MELS).train(train)
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    theirs = other(leaf)
    assert len(theirs) == len(outputs)
    sum((y * torch.from_numpy(w)).sum() for y, w in zip(theirs, weights, strict=False)).backward()
    expected = {f"output {k}": y.detach().numpy() for k, y in enumerate(theirs)}
    expected["gradient"] = leaf.grad.numpy()
    norms = [m for m in other.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    # Ours are sorted as Flax sorts them: by block, then by layer, as PyTorch's were made.
    order = sorted(means)
    assert len(order) == len(norms)
    found |= {f"mean {k}": means[k] for k in order}
    expected |= {f"mean {k}": m.running_mean.numpy() for k, m in zip(order, norms, strict=True)}
    return found, expected


@pytest.mark.parametrize("train", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_equals_the_published_layers(name, train):
    found, expected = both(name, train)
    for key, value in expected.items():
        scale = np.abs(value).max()
        assert scale > 1e-3, key
        tolerance = 1e-4 if key == "gradient" else 1e-5
        error = np.abs(np.asarray(found[key]) - value).max() / scale
        assert error <= tolerance, (key, error)


# The losses


def made():
    """Logits of scenes and events, events by scene, true scenes, soft labels, relations."""
    rng = np.random.default_rng(2)
    return (
        rng.normal(size=(CLIPS, SCENES)),
        rng.normal(size=(CLIPS, EVENTS)),
        rng.normal(size=(CLIPS, SCENES, EVENTS)),
        np.array([1, 4, 0, 1]),
        rng.random((CLIPS, EVENTS)),
        Relations(rng.random((SCENES, EVENTS)), rng.random((SCENES, EVENTS)) > 0.5),
    )


def ours(name):
    scene_logits, event_logits, by_scene, labels, events, relations = made()
    output = Output(scene_logits, event_logits, event_logits_by_scene=by_scene)
    relations = Relations(np.float32(relations.probability), relations.present)
    output = jax.tree.map(jnp.float32, output)
    scene = np.eye(SCENES, dtype=np.float32)[labels]
    related = {"relations": relations} if name in RELATED else {}
    return LOSSES[name](output, scene=scene, events=np.float32(events), **related)["loss"]


def tensors():
    *arrays, relations = made()
    return *map(torch.from_numpy, arrays), relations


def test_losses():
    scene_logits, event_logits, _, labels, events, relations = tensors()
    q, log_p = torch.sigmoid(event_logits), F.log_softmax(scene_logits, dim=-1)
    both = F.nll_loss(log_p, labels) + F.binary_cross_entropy(q, events)
    r = torch.from_numpy(relations.probability)

    def related(guess):
        return both + F.mse_loss(q @ r.T, guess) + F.mse_loss(guess @ r, q)

    for name, expected in (
        ("bce", both),
        ("nll", F.nll_loss(scene_logits, labels)),
        ("rgasc_log", related(log_p)),
        ("rgasc_prob", related(log_p.exp())),
    ):
        np.testing.assert_allclose(ours(name), expected.item(), rtol=1e-5, err_msg=name)


def test_conditional_loss_is_the_mean_over_draws_of_a_wrong_scene():
    scene_logits, event_logits, by_scene, labels, events, relations = tensors()
    present = torch.from_numpy(relations.present)
    losses = []
    # Every clip's k-th wrong scene, for each k: all draws together, equally often.
    for k in range(1, SCENES):
        wrong = (labels + k) % SCENES
        loss = F.cross_entropy(scene_logits, labels)
        for logits, targets in (
            (by_scene[range(CLIPS), labels], events),
            (by_scene[range(CLIPS), wrong], events * present[wrong]),
            (event_logits, events),
        ):
            loss += F.binary_cross_entropy_with_logits(logits, targets)
        losses.append(loss)
    expected = torch.stack(losses).mean().item()
    np.testing.assert_allclose(ours("conditional"), expected, rtol=1e-5)
