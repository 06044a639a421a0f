"""State, optimizer, the train step, the loop, metrics and checkpoints."""
