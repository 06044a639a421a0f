"""What goes wrong with a checkpoint, ours or one in the public layout; the messages are for people."""

from __future__ import annotations

from collections.abc import Sequence

_MOST_LINES = 20


class CheckpointError(ValueError):
    """A checkpoint that cannot be read as the model it should hold."""


class CheckpointMismatch(CheckpointError):
    """A checkpoint of another model; the message names tensors that differ."""


def lines_of(problems: Sequence[str]) -> str:
    """The end of a message: a line for each problem, or for the first 20 of them and how many more there are."""
    more = len(problems) - _MOST_LINES
    return "".join(f"\n  {line}" for line in [*problems[:_MOST_LINES], *([f"and {more} more"] if more > 0 else [])])
