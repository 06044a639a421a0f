"""A training run: its config, initial parameters, jitted programs, and sheets of samples."""
