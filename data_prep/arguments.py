"""Flags that several scripts share."""

import argparse
from collections.abc import Callable

from ergl_jax.errors import InputError


def number(kind: type, low: float, high: float) -> Callable[[str], float]:
    """A flag's `type`: a number from `low` to `high`."""

    def convert(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            raise InputError(f"{text}: give a number from {low:g} to {high:g}")
        return value

    convert.__name__ = kind.__name__  # in argparse's message for text that is no number
    return convert


def names(text: str) -> list[str]:
    """A flag's `type`: names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def add_split_flags(parser: argparse.ArgumentParser, *, folds: str = "folds") -> None:
    """Flags that determine the splits, with the defaults of training."""
    add = parser.add_argument
    add("--test_folds", type=names, default=[], help=f"{folds} of the test split, as 4 or 4,5")
    add("--validation_folds", type=names, default=[], help=f"{folds} of the validation split")
    add(
        "--validation_fraction",
        type=number(float, 0, 0.999),
        default=0.3,
        help="of the training clips, for validation if no validation split is given",
    )
    add("--validation_seed", type=number(int, 0, 2**63), default=0, help="chooses the groups")
