"""What goes wrong with a checkpoint, ours or one in the public layout; the messages are for people."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint that cannot be read as the model it should hold."""


class CheckpointMismatch(CheckpointError):
    """A checkpoint of another model; the message names every tensor that differs."""
