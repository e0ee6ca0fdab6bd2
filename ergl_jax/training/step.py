"""Training and prediction steps, mapped over devices. The only file with `jax.pmap`.

One step per replica with a named axis: gradients and BatchNorm's statistics are averaged over it.
Randomness follows from the seed and the step number alone, so a resumed run draws the same numbers.

Shapes: d local devices, B clips of a batch, S steps, N clips of a split.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ergl_jax.errors import InputError
from ergl_jax.inference.embedding import output_and_features
from ergl_jax.kernels.devices import mean_over_devices
from ergl_jax.models.losses import losses
from ergl_jax.training.augmentation import cropped_frames

AXIS = "batch"
Tree = Any


class TrainState(struct.PyTreeNode):
    """What a run needs to resume."""

    step: jax.Array  # ()
    params: Tree
    batch_stats: Tree
    opt_state: Tree


def init_state(
    model: nn.Module, optimizer: optax.GradientTransformation, *, seed: int, shape: tuple
) -> TrainState:
    """The state before the first step; `shape` is (F, M) of a clip's log-mel."""
    init = jax.jit(partial(model.init, train=False))
    try:
        variables = init({"params": jax.random.key(seed)}, jnp.zeros((1, *shape)))
    except ValueError as error:  # of a layer, for its width or the length of clips
        raise InputError(f"{type(model).__name__} can't be built: {error}") from error
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
    )


def check_crop(model: nn.Module, state: TrainState, *, shape: tuple, crop: float) -> None:
    """InputError unless `model` takes clips without `crop` of them; `shape` as of `init_state`."""
    if not crop:
        return
    frames, reason = cropped_frames(shape[0], crop), "its layers need clips of one length"
    try:
        short = jax.eval_shape(
            lambda: init_state(model, optax.identity(), seed=0, shape=(frames, *shape[1:]))
        )
        pairs = zip(_weights(short), _weights(state), strict=True)
        fits = all(x.shape == y.shape for x, y in pairs)
    except InputError as error:
        fits, reason = False, str(error)
    if not fits:
        raise InputError(
            f"augment.crop={crop} leaves {frames} of {shape[0]} frames: {reason}. Choose a smaller "
            "augment.crop, or 0"
        )


def _weights(state: TrainState) -> list:
    return jax.tree.leaves((state.params, state.batch_stats))


def replicate(tree: Tree) -> Tree:
    """A copy on each local device: leaves get a leading axis of d."""
    devices = np.arange(jax.local_device_count())
    # With the steps' axis name: another one would make the step compile twice.
    return jax.pmap(lambda _, x: x, in_axes=(0, None), axis_name=AXIS)(devices, tree)


def shard(tree: Tree) -> Tree:
    """Puts host arrays (d, ...) on the local devices, a slice on each, explicitly."""
    mesh = Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(AXIS)))


def unreplicate(tree: Tree) -> Tree:
    """The first device's copy, as numpy arrays."""
    # By its shard: indexing the array would be a program and a transfer for each leaf.
    first = jax.device_get(jax.tree.map(lambda x: x.addressable_shards[0].data, tree))
    return jax.tree.map(lambda x: x.reshape(x.shape[1:]), first)


def stack(each: list[dict]) -> dict[str, np.ndarray]:
    """The replicated metrics of S steps as arrays (S,)."""
    each = [unreplicate(metrics) for metrics in each]
    return {name: np.stack([metrics[name] for metrics in each]) for name in each[0]}


def describe_nonfinite(metrics: dict[str, np.ndarray], step: int) -> tuple[str, str]:
    """What of a step is not finite, and its numbers, by the metrics (S,) of an epoch."""
    names = ("scene_loss", "event_loss", "gradient_norm")
    values = ", ".join(f"{name}={metrics[name][step]:.4g}" for name in names)
    what = "gradient or the update" if np.isfinite(metrics["loss"][step]) else "loss"
    return what, values


def check_batch_size(batch_size: int, devices: int | None = None, of: str = "") -> None:
    """InputError unless `devices`, by default those of all processes, divide the batch."""
    devices = devices or jax.device_count()
    if batch_size < 1 or batch_size % devices:
        raise InputError(
            f"train.batch_size={batch_size} is not a multiple of the {devices} devices{of}"
        )


def local_share(x: np.ndarray) -> np.ndarray:
    """This process's part of a global batch, by device: (..., B) -> (d, ..., B / devices)."""
    local, devices = jax.local_device_count(), jax.device_count()
    x = x.reshape(*x.shape[:-1], devices, x.shape[-1] // devices)
    first = jax.process_index() * local
    return np.moveaxis(x[..., first : first + local, :], -2, 0)


def _split(batch: Tree) -> Tree:
    """A host batch by local device: (B, ...) -> (d, B / d, ...)."""
    local = jax.local_device_count()
    return jax.tree.map(lambda x: x.reshape(local, x.shape[0] // local, *x.shape[1:]), batch)


def _norm(tree: Tree) -> jax.Array:
    """The L2 norm of all leaves together; not finite if one of them is not, or above 1e19."""
    # As dot products: for sums of squares XLA would store all squares first.
    highest = jax.lax.Precision.HIGHEST
    return jnp.sqrt(sum(jnp.vdot(x, x, precision=highest) for x in jax.tree.leaves(tree)))


def _largest(tree: Tree) -> jax.Array:
    """The largest magnitude in any leaf; not finite if one of them is not."""
    return jnp.stack([jnp.abs(x).max(initial=0) for x in jax.tree.leaves(tree)]).max()


class Trainer:
    """The compiled steps of one model, optimiser, augmentation and loss.

    Data are dicts of log_mel (N, F, M), scene (N,), events (N, n) and other labels that the loss
    takes. The state passed in is donated: use the returned one. A step's metric `finite` is 0 if
    its loss, its gradient or its new state was not finite; with `skip_nonfinite` such a step
    changes nothing but its number.
    `loss` is one of `make_loss`; its parts are metrics too. The programs are mapped over `devices`,
    by default the local ones; devices of a topology can only compile.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: optax.GradientTransformation,
        augment: Callable,
        *,
        num_scenes: int,
        seed: int,
        loss: Callable = losses,
        skip_nonfinite: bool = False,
        devices: Sequence[jax.Device] | None = None,
    ):
        def step(key: jax.Array, state: TrainState, batch: dict) -> tuple[TrainState, dict]:
            key = jax.random.fold_in(key, state.step)
            augment_key, dropout_key = jax.random.split(
                jax.random.fold_in(key, jax.lax.axis_index(AXIS))
            )
            batch = batch | {"scene": jax.nn.one_hot(batch["scene"], num_scenes)}
            batch = augment(augment_key, batch)

            def objective(params):
                output, changed = model.apply(
                    {"params": params, "batch_stats": state.batch_stats},
                    batch["log_mel"],
                    train=True,
                    rngs={"dropout": dropout_key},
                    mutable=["batch_stats"],
                )
                labels = {name: x for name, x in batch.items() if name != "log_mel"}
                parts = loss(output, **labels)
                hits = (output.scene_logits.argmax(-1) == batch["scene"].argmax(-1)).mean()
                return parts["loss"], (changed["batch_stats"], parts | {"accuracy": hits})

            grads, (batch_stats, metrics) = jax.grad(objective, has_aux=True)(state.params)
            grads, metrics = mean_over_devices((grads, metrics), AXIS)
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            after = TrainState(state.step + 1, params, batch_stats, opt_state)
            norm = _norm(grads)
            largest = _largest((params, batch_stats))
            finite = jnp.isfinite(metrics["loss"] + norm) & jnp.isfinite(largest)
            if skip_nonfinite:
                before = state.replace(step=after.step)
                after = jax.tree.map(partial(jnp.where, finite), after, before)
            return after, metrics | {"gradient_norm": norm, "finite": finite.astype(jnp.float32)}

        def resident_step(key: jax.Array, state: TrainState, data: dict, chosen: jax.Array):
            return step(key, state, jax.tree.map(lambda x: x[chosen], data))

        def scan(key: jax.Array, state: TrainState, data: dict, indices: jax.Array):
            return jax.lax.scan(
                lambda s, chosen: resident_step(key, s, data, chosen), state, indices
            )

        self.seed = seed
        self.step_program, self.resident_step_program, self.scan_program = (
            jax.pmap(each, axis_name=AXIS, donate_argnums=1, devices=devices)
            for each in (step, resident_step, scan)
        )

    @cached_property
    def key(self) -> jax.Array:
        """An argument, not a constant, so that all seeds share one compiled program."""
        return replicate(jax.random.key(self.seed))

    def epoch(
        self, state: TrainState, data: Tree, indices: np.ndarray, *, scan: bool | None = None
    ) -> tuple[TrainState, dict]:
        """All steps of an epoch over resident data.

        Args:
          state: replicated.
          data: a replicated split.
          indices: (S, B), the clips of each step.
          scan: whether the epoch is one compiled `lax.scan`. The default is yes, except on CPU,
            where XLA runs a convolution inside a loop some ten times slower
            (github.com/jax-ml/jax/issues/12868).

        Returns:
          The new state and metrics of shape (S,): loss, scene_loss, event_loss, accuracy,
          gradient_norm, finite.
        """
        indices = local_share(indices)
        if scan is None:
            scan = jax.default_backend() != "cpu"
        if scan:
            # One transfer in, and one out for the metrics.
            state, metrics = self.scan_program(self.key, state, data, shard(indices))
            return state, unreplicate(metrics)
        each = []
        for number in range(indices.shape[1]):
            state, metrics = self.resident_step_program(self.key, state, data, indices[:, number])
            each.append(metrics)
        return state, stack(each)

    def step(self, state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        """One step on this process's share of a batch from the host: arrays of (B, ...).

        Returns the new state and replicated metrics; `stack` makes those of many steps arrays.
        """
        return self.step_program(self.key, state, _split(batch))


def predict_program(
    model: nn.Module, devices: Sequence[jax.Device] | None = None, *, features: bool = False
) -> Callable:
    """The mapped program of `make_predict`: (variables, log_mel (d, B / d, F, M)) -> dict."""

    def predict(variables: Tree, log_mel: jax.Array) -> dict:
        output: Any
        if features:
            output, found = output_and_features(model, variables, log_mel)
            return {"scene_logits": output.scene_logits, "embedding": found}
        output = model.apply(variables, log_mel, train=False)
        result = {"scene_logits": output.scene_logits}
        if output.event_logits is not None:
            result["event_probabilities"] = nn.sigmoid(output.event_logits)
        if output.embedding is not None:
            result["embedding"] = output.embedding
        return result

    return jax.pmap(predict, devices=devices)


def make_predict(
    model: nn.Module, *, features: bool = False
) -> Callable[[Tree, np.ndarray], dict[str, np.ndarray]]:
    """A compiled function (variables, log_mel) -> dict of scene_logits (B, scenes).

    Also event_probabilities (B, n) and embedding (B, D) if the model has them. With `features`:
    scene_logits, and the features of `output_and_features` as embedding. `variables` are
    replicated, log_mel (B, F, M) is a host array and B a multiple of d. Each process predicts the
    clips that it is given.
    """
    mapped = predict_program(model, features=features)

    def run(variables: Tree, log_mel: np.ndarray) -> dict[str, np.ndarray]:
        result = jax.device_get(mapped(variables, _split(log_mel)))
        return {name: x.reshape(-1, x.shape[-1]) for name, x in result.items()}

    return run
