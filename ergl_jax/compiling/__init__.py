"""Compiling training for TPUs and GPUs on a machine that has neither."""
