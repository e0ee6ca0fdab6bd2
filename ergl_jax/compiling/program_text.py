"""Reads XLA's text of an optimised program: collectives, layout copies, aliased buffers."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BITS = {"pred": 8, "bf16": 16, "f8e4m3fn": 8, "f8e5m2": 8}
_ARRAY = re.compile(r"(pred|bf16|f8\w+|[fsuc]\d+)\[([\d,]*)\](?:\{([\d,]*))?")
_OPERATION = re.compile(r"^ +(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)$")


class Operation(NamedTuple):
    """One line of a program; `type` and `rest` as in the text."""

    name: str
    type: str
    kind: str
    rest: str


def operations(text: str) -> Iterator[Operation]:
    """Every operation of the program, those inside of fusions too."""
    for line in text.splitlines():
        if match := _OPERATION.match(_without_tiles(line)):
            yield Operation(*match.groups())


def _without_tiles(line: str) -> str:
    # "{1,0:T(8,128)S(1)}" -> "{1,0}": parentheses are then those of tuples and operands.
    return re.sub(r"\{([\d,]*):[^{}]*\}", r"{\1}", line)


def size(type: str) -> int:
    """Bytes of an array's or a tuple's type, without padding."""
    total = 0
    for kind, shape, _ in _ARRAY.findall(type):
        bits = _BITS.get(kind) or int(kind[1:])
        total += math.prod(int(n) for n in shape.split(",") if n) * bits // 8
    return total


def collectives(text: str) -> dict[str, tuple[int, int]]:
    """For each kind of collective, how many there are and the bytes of their results."""
    found: dict[str, tuple[int, int]] = {}
    for operation in operations(text):
        kind = operation.kind.removesuffix("-start")
        if kind in _COLLECTIVES:
            number, total = found.get(kind, (0, 0))
            found[kind] = number + 1, total + size(operation.type)
    return found


def layout_copies(text: str) -> tuple[int, int]:
    """How many copies do nothing but change a layout, and the bytes they read and write."""
    types, number, total = {}, 0, 0
    for operation in operations(text):
        types[operation.name] = operation.type
        if operation.kind != "copy":
            continue
        source = types.get(operation.rest.partition(")")[0].split()[-1].lstrip("%"), "")
        before, after = (_ARRAY.search(type) for type in (source, operation.type))
        if before and after and before[3] != after[3]:
            number, total = number + 1, total + 2 * size(operation.type)
    return number, total


def aliased(text: str) -> int:
    """How many arguments are donated to a result."""
    header = text.partition("\n")[0]
    return len(re.findall(r"\{[\d,]*\}: \(\d+, \{[\d,]*\}, (?:may|must)-alias\)", header))
