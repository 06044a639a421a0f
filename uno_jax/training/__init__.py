"""Training: state, optimizer, train step, loop, metrics and checkpoints."""
