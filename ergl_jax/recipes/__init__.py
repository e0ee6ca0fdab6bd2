"""Training that takes several runs: stages, closed-form fits to their outputs, tables."""
