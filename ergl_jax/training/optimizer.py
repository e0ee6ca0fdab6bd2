"""AdamW with PyTorch's defaults, since the paper was trained in PyTorch."""

from collections.abc import Collection

import optax

from ergl_jax.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, *, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """The learning rate at each step: linear warm-up, then constant or cosine to zero."""
    warmup = int(config.warmup_epochs * steps_per_epoch)  # rounded down, to leave a step
    if config.schedule == "constant":
        main = optax.constant_schedule(config.learning_rate)
    else:
        main = optax.cosine_decay_schedule(config.learning_rate, epochs * steps_per_epoch - warmup)
    if not warmup:
        return main
    ramp = optax.linear_schedule(0.0, config.learning_rate, warmup)
    return optax.join_schedules([ramp, main], [warmup])


def adamw(
    config: OptimizerConfig, *, steps_per_epoch: int, epochs: int, frozen: Collection[str] = ()
) -> optax.GradientTransformation:
    """AdamW over all parameters, biases and BatchNorm's included, as `torch.optim.AdamW` does.

    Optax's own default weight decay is 1e-4, PyTorch's 1e-2; with 0 it is Adam. Submodules named in
    `frozen` get no update and no decay.
    """
    adamw = optax.adamw(
        learning_rate(config, steps_per_epoch=steps_per_epoch, epochs=epochs),
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        weight_decay=config.weight_decay,
    )
    if not frozen:
        return adamw

    def labels(params: dict) -> dict[str, str]:
        return {name: "frozen" if name in frozen else "trained" for name in params}

    return optax.multi_transform({"trained": adamw, "frozen": optax.set_to_zero()}, labels)
