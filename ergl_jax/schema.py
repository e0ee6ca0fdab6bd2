"""Checks the fields and types of a value that was read from JSON or set by flags."""

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
    found: Any, schema: Schema, where: str = "", prefix: str = "", *, others: bool = False
) -> None:
    """InputError unless `found` has the fields of the schema, each of its type.

    An int may stand for a float and a list for a tuple; numbers must be finite. The message names
    the wrong field as `<where><prefix><field>`. Other fields are errors unless `others`.
    """
    if not isinstance(found, Mapping):
        name = prefix.removesuffix(".") or "it"
        raise InputError(f"{where}{name} is not an object of fields: {short(found)}")
    for name, kind in schema.items():
        field = f"{where}{prefix}{name}"
        if name not in found:
            raise InputError(f"{field} is missing")
        if isinstance(kind, Mapping):
            check(found[name], kind, where, f"{prefix}{name}.", others=others)
        elif not _is(found[name], kind):
            raise InputError(f"{field}={short(found[name])} is not {_NAMES[kind]}")
    for name in found:
        if name not in schema and not others:
            raise InputError(f"{where}{prefix}{name} is an unknown field")


_NAMES = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    tuple: "a list",
    list: "a list",
    dict: "an object of fields",
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


def short(value: Any) -> str:
    """A value as Python writes it, cut to 60 characters, for error messages."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
