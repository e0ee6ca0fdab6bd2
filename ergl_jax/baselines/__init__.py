"""The systems that the paper compares with: each file has a model and its loss, if any."""
