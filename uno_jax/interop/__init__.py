"""Reads and writes checkpoints in the public BAGEL layout, and loads a model from either layout."""
