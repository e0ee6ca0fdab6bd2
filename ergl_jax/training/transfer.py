"""An encoder that starts from a bundle's weights and not from chance."""

from ergl_jax.audio import FrontEnd
from ergl_jax.errors import InputError
from ergl_jax.files import user_path
from ergl_jax.inference.bundle import load
from ergl_jax.training.steps import TrainState


def start_encoder(state: TrainState, config, front_end: FrontEnd) -> tuple[TrainState, str]:
    """A first state with the encoder of `config.init_from`, and what to say of its origin.

    Weights and running statistics are taken; all that follows the encoder stays as it was.

    Args:
      state: before the first step.
      config: a `config.model`; its init_from names a bundle of any model.
      front_end: of the data that are to be trained on.

    Raises:
      InputError: no bundle there, or one with another encoder or front end.
    """
    path = user_path(config.init_from)
    bundle = load(path)
    encoder = bundle.model["encoder"]
    for field in ("architecture", "width_divisor"):
        if encoder[field] != config.encoder[field]:
            raise InputError(
                f"model.init_from={path} has model.encoder.{field}={encoder[field]}, not "
                f"{config.encoder[field]}: set --config.model.encoder.{field}={encoder[field]}"
            )
    if bundle.front_end != front_end:
        raise InputError(
            f"model.init_from={path} has front end {bundle.front_end.name!r}, not "
            f"{front_end.name!r}: set --config.data.front_end={bundle.front_end.name}"
        )
    params, batch_stats = (
        {**mine, "encoder": bundle.variables[name]["encoder"]}
        for name, mine in (("params", state.params), ("batch_stats", state.batch_stats))
    )
    origin = bundle.source or f"a model trained on {bundle.dataset}"
    source = f"encoder begun with {origin} (licence: {bundle.licence})"
    return state.replace(params=params, batch_stats=batch_stats), source
