"""What needs several runs: stages, closed-form fits to their outputs, tables."""
