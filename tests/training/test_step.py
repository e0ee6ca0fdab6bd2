"""Steps: many devices equal one, and the ways through an epoch equal each other.

As a script, `python test_step.py OUT.npz`, it runs `measure` on the devices that XLA_FLAGS sets:
their number is fixed once JAX has started.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from configs import test as test_config
from ergl_jax import registry
from ergl_jax.errors import InputError
from ergl_jax.models import Output
from ergl_jax.training import optimizer
from ergl_jax.training.augmentation import make_augment
from ergl_jax.training.step import (
    AXIS,
    Trainer,
    check_batch_size,
    check_crop,
    init_state,
    local_share,
    make_predict,
    replicate,
    stack,
    unreplicate,
)

ROOT = Path(__file__).resolve().parents[2]
STEPS, BATCH, CLIPS = 20, 16, 40


class Toy(nn.Module):
    """A model with BatchNorm and dropout that compiles fast."""

    axis_name: str | None = AXIS
    dropout: float = 0.5

    @nn.compact
    def __call__(self, log_mel, *, train):
        x = log_mel.reshape(len(log_mel), -1)
        x = nn.BatchNorm(use_running_average=not train, axis_name=self.axis_name)(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Output(nn.Dense(10)(x), nn.Dense(4)(x))


class Coin(nn.Module):
    """Two logits of 0 or 2 by dropout: a clip's loss for scene 0 is one of COIN_LOSSES."""

    @nn.compact
    def __call__(self, log_mel, *, train):
        nn.BatchNorm(use_running_average=not train)(log_mel)
        ones = 1 + 0 * log_mel[:, 0, :2]
        return Output(nn.Dropout(0.5, deterministic=not train)(ones))


COIN_LOSSES = np.log([2, 1 + np.exp(2), 1 + np.exp(-2)])


def examples(frames, mels):
    """A split of CLIPS random clips, the same every time."""
    rng = np.random.default_rng(0)
    return {
        "log_mel": rng.normal(-40, 15, (CLIPS, frames, mels)).astype(np.float32),
        "scene": rng.integers(0, 10, CLIPS).astype(np.int32),
        "events": rng.random((CLIPS, 4), np.float32),
    }


def schedule(count=STEPS, batch=BATCH):
    """The clips of each step."""
    return np.random.default_rng(1).integers(0, CLIPS, (count, batch)).astype(np.int32)


def trainer(model, optimiser, *, seed=0, num_scenes=10, loss=None, **augment):
    config = test_config.get_config().augment
    config.update(augment)
    options = {} if loss is None else {"loss": loss}
    return Trainer(
        model, optimiser, make_augment(config), num_scenes=num_scenes, seed=seed, **options
    )


def ergl_curve():
    """The losses of 20 steps of a tiny ERGL without dropout, and where its variables end."""
    config = test_config.get_config()
    config.model.dropout = config.model.encoder.dropout = 0.0
    config.optimizer.schedule, config.optimizer.warmup_epochs = "constant", 0.0
    config.optimizer.learning_rate = 1e-3
    model = registry.build(config.model, num_scenes=10, num_events=4, axis_name=AXIS)
    adamw = optimizer.adamw(config.optimizer, steps_per_epoch=STEPS, epochs=1)
    data = examples(64, 32)
    state = replicate(init_state(model, adamw, seed=0, shape=(64, 32)))
    # From here on with LLVM's optimisations, as users have them: BatchNorm's variance is
    # E[x²] - E[x]², and sums made without lose too many of its digits.
    jax.config.update("jax_disable_most_optimizations", False)
    state, metrics = trainer(model, adamw).epoch(state, replicate(data), schedule())
    state = unreplicate(state)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    predicted = make_predict(model)(replicate(variables), data["log_mel"])
    return (
        {"loss": metrics["loss"], "step": state.step}
        | {f"predicted/{name}": x for name, x in predicted.items()}
        | flatten_dict(variables, sep="/")
    )


def measure():
    """`ergl_curve`, and on several devices the dropout of each."""
    found = ergl_curve()
    if jax.device_count() == 1:
        return found
    coin = trainer(Coin(), optax.set_to_zero(), num_scenes=2)
    batch = {
        "log_mel": np.zeros((8, 4, 4), np.float32),
        "scene": np.zeros(8, np.int32),
        "events": np.zeros((8, 0), np.float32),
    }
    state = replicate(
        init_state(Coin(), optax.set_to_zero(), seed=0, shape=batch["log_mel"].shape[1:])
    )
    each = [None] * 8
    for number in range(8):
        state, each[number] = coin.step(state, batch)
    try:
        check_batch_size(12)
    except InputError as error:
        found["refusal"] = np.array(str(error))
    data, indices = replicate(batch), np.tile(np.arange(8), (3, 1))
    with jax.transfer_guard("disallow"):
        _, metrics = coin.epoch(state, data, indices, scan=True)
    return found | {"coin": stack(each)["loss"], "guarded": metrics["loss"]}


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    """The script on one device and on eight, at the same time."""
    directory, processes = tmp_path_factory.mktemp("curves"), []
    for devices in (1, 8):
        flags = (
            f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
        )
        environment = {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        process = subprocess.Popen(
            [sys.executable, __file__, str(directory / f"{devices}.npz")],
            env=os.environ | environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
    try:
        for process in processes:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    return [dict(np.load(directory / f"{devices}.npz")) for devices in (1, 8)]


def test_eight_devices_train_as_one(curves):
    one, eight = curves
    assert one["loss"].shape == (STEPS,) and one["loss"][-4:].mean() < one["loss"][:4].mean()
    np.testing.assert_allclose(eight["loss"], one["loss"], rtol=0, atol=1e-4)
    names = [name for name in one if name.startswith(("params/", "batch_stats/"))]
    assert len(names) > 40 and one["step"] == eight["step"] == STEPS
    for name in names:
        # Statistics are of inputs in dB, some -40, and of their variance, some 200.
        rtol = 1e-4 if name.startswith("batch_stats") else 0
        np.testing.assert_allclose(eight[name], one[name], rtol=rtol, atol=1e-4, err_msg=name)


def test_eight_devices_predict_as_one(curves):
    one, eight = curves
    for name in ("predicted/scene_logits", "predicted/event_probabilities"):
        assert len(one[name]) == CLIPS
        np.testing.assert_allclose(eight[name], one[name], atol=1e-3, err_msg=name)


def test_each_device_has_its_own_dropout_and_no_transfer(curves):
    eight = curves[1]
    # With one mask for all, the mean of eight equal losses would be that of one clip.
    distance = np.abs(eight["coin"][:, None] - COIN_LOSSES).min(axis=1)
    assert (distance > 1e-3).sum() >= 6
    assert eight["guarded"].shape == (3,)
    assert "train.batch_size=12 is not a multiple of the 8 devices" in str(eight["refusal"])


@pytest.fixture(scope="module")
def toy():
    """A trainer with dropout and augmentation, its first state on the host, and a split."""
    adam = optax.adam(1e-2)
    data = examples(16, 6)
    state = jax.device_get(init_state(Toy(), adam, seed=0, shape=(16, 6)))
    mechanics = trainer(Toy(), adam, time_masks=1, time_width=4)
    return mechanics, state, data


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)


def test_one_scan_equals_step_by_step(toy):
    mechanics, start, data = toy
    found = []
    for scan in (False, True):
        state, metrics = mechanics.epoch(
            replicate(start), replicate(data), schedule(6, 8), scan=scan
        )
        assert {name: x.shape for name, x in metrics.items()} == dict.fromkeys(
            ("loss", "scene_loss", "event_loss", "accuracy", "gradient_norm", "finite"), (6,)
        )
        found.append((unreplicate(state), metrics))
    close(*found)
    assert found[0][0].step == 6


def test_a_scanned_epoch_makes_no_transfer_of_its_own(toy):
    """Under JAX's guard, which lets only `device_put` and `device_get` pass."""
    mechanics, start, data = toy
    state, data = replicate(start), replicate(data)
    indices = schedule(6, 8)
    with jax.transfer_guard("disallow"):
        # The guard works on a CPU too: indices from the host would be a transfer.
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            mechanics.scan_program(mechanics.key, state, data, local_share(indices))
        state, metrics = mechanics.epoch(state, data, indices, scan=True)
        state, metrics = mechanics.epoch(state, data, indices, scan=True)
    assert metrics["loss"].shape == (6,)
    assert unreplicate(state).step == 12


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_an_epoch_of_bfloat16_lowers_for_other_devices(platform):
    """One loop whose convolutions all are of bfloat16, in and out, and whose state is float32."""
    config = test_config.get_config().model
    config.compute_dtype = "bfloat16"
    model = registry.build(config, num_scenes=10, num_events=4, axis_name=AXIS)
    optimiser, data = optax.adamw(1e-3), examples(32, 64)
    epoch = trainer(model, optimiser)
    state = jax.eval_shape(lambda: init_state(model, optimiser, seed=0, shape=(32, 64)))
    mapped = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), (state, data, schedule())
    )
    program = jax.jit(epoch.scan_program).trace(epoch.key, *mapped)
    text = program.lower(lowering_platforms=(platform,)).as_text()
    signatures = re.findall(r"stablehlo\.convolution.* : (\(.*\) -> tensor<.*?>)", text)
    types = {kind for one in signatures for kind in re.findall(r"x([a-z]+\d+)>", one)}
    assert len(signatures) > 10 and types == {"bf16"} and "stablehlo.while" in text
    after, _ = jax.eval_shape(epoch.scan_program, epoch.key, *mapped)
    assert {x.dtype.name for x in jax.tree.leaves(after)} == {"float32", "int32"}


def test_batches_from_the_host_equal_resident_ones(toy):
    mechanics, start, data = toy
    state, resident = mechanics.epoch(replicate(start), replicate(data), schedule(6, 8), scan=False)
    streamed, each = replicate(start), []
    for chosen in schedule(6, 8):
        batch = {name: x[chosen] for name, x in data.items()}
        streamed, metrics = mechanics.step(streamed, batch)
        each.append(metrics)
    close(unreplicate(state), unreplicate(streamed))
    close(resident, stack(each))


def run(mechanics, start, data, indices):
    state, metrics = mechanics.epoch(replicate(start), replicate(data), indices, scan=False)
    return unreplicate(state), metrics["loss"]


def test_randomness_follows_from_seed_and_step_alone(toy):
    mechanics, start, data = toy
    indices = schedule(6, 8)
    whole, losses = run(mechanics, start, data, indices)
    half, first = run(mechanics, start, data, indices[:3])
    # As after a restart: a new trainer, the state from the host.
    adam = optax.adam(1e-2)
    fresh = trainer(Toy(), adam, time_masks=1, time_width=4)
    resumed, second = run(fresh, half, data, indices[3:])
    equal(whole, resumed)
    equal(losses, np.concatenate([first, second]))
    other = trainer(Toy(), adam, seed=1, time_masks=1, time_width=4)
    assert (run(other, start, data, indices)[1] != losses).all()


def test_each_step_draws_its_own_numbers(toy):
    _, start, data = toy
    still = optax.set_to_zero()
    state = init_state(Toy(), still, seed=0, shape=(16, 6))
    indices = np.tile(schedule(1, 8), (5, 1))
    moving, losses = run(trainer(Toy(), still), state, data, indices)
    equal(moving.params, jax.device_get(state.params))
    assert len(set(losses.tolist())) == 5
    certain = Toy(dropout=0.0)
    _, losses = run(trainer(certain, still), state, data, indices)
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)


def test_the_chosen_loss_falls(toy):
    _, _, data = toy
    model, sgd = Toy(dropout=0.0), optax.sgd(1e-2)
    state = jax.device_get(init_state(model, sgd, seed=0, shape=(16, 6)))
    labels = {"scene": data["scene"], "events": data["events"]}
    first = {}
    for name in ("ergl", "bce", "rgasc_prob"):
        loss = registry.make_loss(name, **labels, num_scenes=10, threshold=0.5)
        each = trainer(model, sgd, loss=loss)
        _, found = each.epoch(replicate(state), replicate(data), np.tile(schedule(1, 8), (5, 1)))
        first[name] = {key: x[0] for key, x in found.items()}
        assert found["loss"][-1] < found["loss"][0]
    assert first["ergl"]["scene_loss"] == first["bce"]["scene_loss"]
    assert first["ergl"]["event_loss"] < first["bce"]["event_loss"]
    assert first["rgasc_prob"]["event_loss"] == first["bce"]["event_loss"]
    parts = [first["rgasc_prob"][f"{part}_loss"] for part in ("scene", "event", "relation")]
    np.testing.assert_allclose(first["rgasc_prob"]["loss"], sum(parts), rtol=1e-6)


def test_the_state_passed_in_is_donated(toy):
    mechanics, start, data = toy
    batch = {name: x[:8] for name, x in data.items()}
    data = replicate(data)
    for call in (
        lambda state: mechanics.step(state, batch),
        lambda state: mechanics.epoch(state, data, schedule(1, 8), scan=False),
        lambda state: mechanics.epoch(state, data, schedule(1, 8), scan=True),
    ):
        state = replicate(start)
        call(state)
        assert all(x.is_deleted() for x in jax.tree.leaves(state))
        with pytest.raises(RuntimeError, match="deleted"):
            np.asarray(state.step)


def test_a_step_reports_what_it_started_from(toy):
    """Metrics are those of the parameters before the step, on the batch as augmented."""
    _, _, data = toy
    sgd, model = optax.sgd(0.1), Toy(dropout=0.0)
    start = jax.device_get(init_state(model, sgd, seed=0, shape=(16, 6)))
    _, metrics = trainer(model, sgd).step(
        replicate(start), {name: x[:8] for name, x in data.items()}
    )
    variables = {"params": start.params, "batch_stats": start.batch_stats}
    output, _ = Toy(axis_name=None, dropout=0.0).apply(
        variables, data["log_mel"][:8], train=True, mutable=["batch_stats"]
    )
    metrics, truth = unreplicate(metrics), data["scene"][:8]
    scene = optax.softmax_cross_entropy_with_integer_labels(output.scene_logits, truth).mean()
    event = np.square(nn.sigmoid(output.event_logits) - data["events"][:8]).mean()
    np.testing.assert_allclose(metrics["loss"], scene + event, rtol=1e-5)
    assert metrics["accuracy"] == (output.scene_logits.argmax(-1) == truth).mean()


def test_predict_uses_running_statistics_and_no_dropout(toy):
    _, start, data = toy
    variables = {"params": start.params, "batch_stats": start.batch_stats}
    predict = make_predict(Toy())
    found = predict(replicate(variables), data["log_mel"][:8])
    output = Toy().apply(variables, data["log_mel"][:8], train=False)
    np.testing.assert_allclose(found["scene_logits"], output.scene_logits, rtol=1e-4, atol=1e-4)
    probabilities = nn.sigmoid(output.event_logits)
    np.testing.assert_allclose(found["event_probabilities"], probabilities, rtol=1e-4, atol=1e-6)


def test_a_model_for_clips_of_one_length_is_not_trained_on_parts_of_them():
    class Flat(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            return nn.Dense(2)(nn.BatchNorm(not train)(x.reshape(len(x), -1)))

    state = init_state(Flat(), optax.identity(), seed=0, shape=(16, 6))
    check_crop(Flat(), state, shape=(16, 6), crop=0)
    with pytest.raises(InputError, match=r"augment\.crop=0\.5 leaves 8 of 16 frames: its layers"):
        check_crop(Flat(), state, shape=(16, 6), crop=0.5)


if __name__ == "__main__":
    np.savez(sys.argv[1], **measure())
