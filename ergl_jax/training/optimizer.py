"""AdamW with PyTorch's defaults, since the paper was trained there."""

from collections.abc import Collection

import optax

from ergl_jax.errors import InputError

SCHEDULES = ("constant", "cosine")


def check(config, *, epochs: int) -> None:
    """InputError for a `config.optimizer` that no run of so many epochs can have."""
    if not config.learning_rate > 0:
        raise InputError(
            f"optimizer.learning_rate={config.learning_rate} is not above zero: try 1e-3"
        )
    if not 0 <= config.warmup_epochs < max(epochs, 1):
        raise InputError(
            f"optimizer.warmup_epochs={config.warmup_epochs} is not from 0 to less than "
            f"train.epochs={epochs}: set a smaller one, such as 0"
        )
    if not config.weight_decay >= 0:
        raise InputError(f"optimizer.weight_decay={config.weight_decay} is below zero: try 1e-2")
    if config.schedule not in SCHEDULES:
        raise InputError(
            f"optimizer.schedule={config.schedule!r} is not one of: {', '.join(SCHEDULES)}"
        )


def learning_rate(config, *, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """A `config.optimizer`'s rate at each step: linear warm-up, then constant or cosine to zero."""
    check(config, epochs=epochs)
    warmup = int(config.warmup_epochs * steps_per_epoch)  # down, so that a step is left
    if config.schedule == "constant":
        main = optax.constant_schedule(config.learning_rate)
    else:
        main = optax.cosine_decay_schedule(config.learning_rate, epochs * steps_per_epoch - warmup)
    if not warmup:
        return main
    ramp = optax.linear_schedule(0.0, config.learning_rate, warmup)
    return optax.join_schedules([ramp, main], [warmup])


def adamw(
    config, *, steps_per_epoch: int, epochs: int, frozen: Collection[str] = ()
) -> optax.GradientTransformation:
    """AdamW over all parameters, biases and BatchNorm's included, as `torch.optim.AdamW` does.

    Optax's own default weight decay is 1e-4, PyTorch's 1e-2; at 0 it is Adam. Submodules named in
    `frozen` stay as they are, without decay too.
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

    def kinds(params: dict) -> dict[str, str]:
        return {name: "frozen" if name in frozen else "trained" for name in params}

    return optax.multi_transform({"trained": adamw, "frozen": optax.set_to_zero()}, kinds)
