"""Training on the torch backend: data, optimisers, the loop, checkpoints."""
