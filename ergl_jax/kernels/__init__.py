"""How an operation is computed on which device, each with a plain reference beside it."""
