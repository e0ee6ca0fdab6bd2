"""Full float32 products in every comparison, and the table at the end of the run."""

import jax
import pytest

from equivalence import compare


@pytest.fixture(autouse=True)
def precision():
    with jax.default_matmul_precision(compare.PRECISION):
        yield


def pytest_terminal_summary(terminalreporter):
    if compare.TABLE:
        terminalreporter.section(f"equivalence, {compare.PRECISION} products")
        for line in compare.table():
            terminalreporter.write_line(line)
