"""What goes wrong with a checkpoint directory."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint directory that cannot be read as the model it should hold; the message is for people."""
