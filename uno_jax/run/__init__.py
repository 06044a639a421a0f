"""A training run: its config, what it starts from, its jitted programs, and the pictures that it makes meanwhile."""
