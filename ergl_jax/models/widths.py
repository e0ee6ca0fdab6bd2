"""How a system is made narrower for small runs."""

from ergl_jax.errors import InputError


def divided(widths: tuple[int, ...], width_divisor: int) -> tuple[int, ...]:
    """Channels and hidden sizes, each divided by `width_divisor`; InputError if one has a rest."""
    if width_divisor < 1:
        raise InputError(f"model.encoder.width_divisor={width_divisor} must be at least 1")
    for width in widths:
        if width % width_divisor:
            raise InputError(
                f"model.encoder.width_divisor={width_divisor} does not divide a layer of {width} "
                "channels: use a power of two"
            )
    return tuple(width // width_divisor for width in widths)
