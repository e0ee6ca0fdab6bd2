"""The whole model against PyTorch, number by number: `pytest -k equivalence`."""
