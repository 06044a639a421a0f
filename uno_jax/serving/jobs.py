"""Work of the model for a request: one picture or one answer each, and what the model reports of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from uno_jax.data.plans import Plan
from uno_jax.inference.generate import GeneratedImage, Request
from uno_jax.sampling.text import TextConfig


@dataclass(frozen=True)
class Question:
    """A context that has been read into a plan, and how its answer is sampled."""

    plan: Plan
    text: TextConfig
    seed: int
    stop: tuple[str, ...] = ()
    """Texts that end the answer, and are not part of it."""


Finish = Literal["stop", "length"]
"""Whether an answer has ended, or has its maximum length."""


class Piece(NamedTuple):
    """What an answer has gained since its last piece."""

    content: str
    thought: str


class Answered(NamedTuple):
    """A complete answer."""

    content: str
    thought: str
    read: int
    """Tokens of the context."""
    written: int
    """Tokens of thought and answer."""
    finish: Finish


Event = Piece | Answered | GeneratedImage | Exception
"""What is reported of a job. A piece is followed by others, and any other event is the last of its job."""


@dataclass(frozen=True, eq=False)
class Job:
    """One picture or answer that is wanted."""

    work: Request | Question
    kind: Hashable
    """Jobs of equal kind may run in one batch."""
    report: Callable[[Event], None]
    """Receives events, in the thread of the model."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits for the result any more."""
