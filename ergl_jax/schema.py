"""Whether what was read from JSON, or set by a flag, has the fields and types that code expects."""

import math
from collections.abc import Mapping
from typing import Any

from ergl_jax.errors import InputError

Schema = Mapping[str, "type | Schema"]


def schema_of(example: Mapping[str, Any]) -> Schema:
    """The type of each field of an example, nested as it is."""
    return {
        name: schema_of(value) if isinstance(value, Mapping) else type(value)
        for name, value in example.items()
    }


def check(
    found: Any, wanted: Schema, where: str = "", prefix: str = "", *, others: bool = False
) -> None:
    """InputError unless `found` has the wanted fields, each of its type, and no others.

    An int will do for a float, a list for a tuple; no number may be NaN or infinite. What is
    wrong is named as `<where><prefix><field>`. With `others`, other fields are passed over.
    """
    if not isinstance(found, Mapping):
        name = prefix.removesuffix(".") or "what it holds"
        raise InputError(f"{where}{name} is no object of fields: {_short(found)}")
    for name in [*wanted, *(name for name in found if name not in wanted)]:
        if name not in found:
            raise InputError(f"{where}{prefix}{name} is missing")
        if name not in wanted:
            if others:
                continue
            raise InputError(f"{where}{prefix}{name} is no field that this version knows")
        kind, value = wanted[name], found[name]
        if isinstance(kind, Mapping):
            check(value, kind, where, f"{prefix}{name}.", others=others)
        elif not _is(value, kind):
            raise InputError(f"{where}{prefix}{name}={_short(value)} is no {_NAMES[kind]}")


_NAMES = {
    str: "text",
    bool: "true or false",
    int: "whole number",
    float: "finite number",
    tuple: "list",
    list: "list",
    dict: "object of fields",
}


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        try:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            return number and math.isfinite(value)
        except OverflowError:
            return False
    if kind in (tuple, list):
        return isinstance(value, tuple | list) and None not in value
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
