"""The systems that the paper compares with: model, loss and notes on the source of each."""
