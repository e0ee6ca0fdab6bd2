"""Largest errors, what they may be, and the table of all that was compared."""

import os
from dataclasses import dataclass

import jax
import numpy as np

# Largest absolute error over the tensor's largest absolute value, by the kind of tensor: the first
# part of its name.
# AdamW divides a gradient by its own size, so the few weights whose gradient is mere rounding go
# their own way, and the root mean square shows whether the steps are right.
TOLERANCES = {"gradients": 1e-4, "adamw": 3e-4}
TOLERANCE = 1e-5  # of the others
ADAMW_RMS = 5e-6  # a tenth of what five steps of weight decay come to
# JAX's own variable asks for another precision: TF32 on a GPU, to see what it costs.
PRECISION = os.environ.get("JAX_DEFAULT_MATMUL_PRECISION", "float32")


@dataclass(frozen=True)
class Row:
    layer: str
    tensors: str  # the kind, and how many
    shape: tuple[int, ...]  # of the tensor with the largest relative error
    absolute: float
    relative: float
    reference: str  # "stored" or a live library


TABLE: list[Row] = []


def relative_errors(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> dict[str, float]:
    """Each tensor's error. A tensor of zeros must be met exactly; NaN is as wrong as can be."""
    assert got.keys() == want.keys(), f"tensors differ: {sorted(got.keys() ^ want.keys())}"
    found = {}
    for name, reference in want.items():
        ours = np.asarray(got[name])
        assert ours.shape == reference.shape, f"{name}: {ours.shape} is not {reference.shape}"
        error, size = np.abs(ours - reference).max(), np.abs(reference).max()
        found[name] = float(error / size) if size > 0 else float(np.where(error == 0, 0, np.inf))
        if np.isnan(found[name]):
            found[name] = np.inf
    return found


def beyond(got: dict, want: dict, tolerance: float | None = None) -> dict[str, float]:
    """The tensors whose error is above their kind's tolerance, or above the one given."""
    return {
        name: error
        for name, error in relative_errors(got, want).items()
        if error > (tolerance or TOLERANCES.get(name.split("/")[0], TOLERANCE))
    }


def beyond_rms(got: dict, want: dict) -> dict[str, float]:
    """The tensors of AdamW whose root mean square error, relative as above, is above ADAMW_RMS."""
    found = {
        name: float(np.sqrt(np.mean((got[name] - x) ** 2)) / np.abs(x).max())
        for name, x in want.items()
        if name.split("/")[0] == "adamw"
    }
    return {name: error for name, error in found.items() if not error <= ADAMW_RMS}


def assert_equal(layer: str, got: dict, want: dict, reference: str, tolerance=None) -> None:
    """Fails with the tensors beyond tolerance; adds a line for each kind of tensor to the table."""
    errors = relative_errors(got, want)
    for kind in dict.fromkeys(name.split("/")[0] for name in want):
        names = [name for name in want if name.split("/")[0] == kind]
        worst = max(names, key=errors.get)
        absolute = max(float(np.abs(got[name] - want[name]).max()) for name in names)
        tensors = kind if len(names) == 1 else f"{kind}, {len(names)}"
        shape = np.shape(want[worst])
        TABLE.append(Row(layer, tensors, shape, absolute, errors[worst], reference))
    wrong = beyond(got, want, tolerance) | beyond_rms(got, want)
    assert not wrong, f"{layer}: relative errors beyond tolerance: {wrong}"


def table() -> list[str]:
    """The lines of the table, in Markdown."""
    backend = jax.default_backend()
    lines = [
        "| layer | tensors | shape of the worst | largest absolute error | relative | backend | "
        "reference |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in TABLE:
        shape = " x ".join(map(str, row.shape)) or "scalar"
        lines.append(
            f"| {row.layer} | {row.tensors} | {shape} | {row.absolute:.1e} | {row.relative:.1e} | "
            f"{backend} | {row.reference} |"
        )
    return lines
