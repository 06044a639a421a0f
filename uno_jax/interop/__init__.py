"""Checkpoints in the public BAGEL layout, read into our parameter tree."""
