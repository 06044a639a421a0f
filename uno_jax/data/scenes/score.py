"""Judges pictures of scenes by the facts of a text, and edited pictures by what had to stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from uno_jax.data.scenes.facts import Fact, holds
from uno_jax.data.scenes.scene import Thing
from uno_jax.data.scenes.see import Seen, find_things
from uno_jax.data.scenes.segment import ground_difference, resize

_MOVED = 0.06  # as a fraction of the picture's side
_OTHER_GROUND = 10.0  # two grounds of scenes differ by 12 or more


@dataclass(frozen=True)
class Judgement:
    """What a picture shows of a text."""

    facts: tuple[bool, ...]
    """Whether each fact holds."""
    total: bool
    """Whether the picture has the right number of things."""
    seen: tuple[Seen, ...]

    @property
    def right(self) -> bool:
        """Whether the picture follows the text fully."""
        return self.total and all(self.facts)


@dataclass(frozen=True)
class EditJudgement:
    """What an edited picture shows of the edit."""

    target: Judgement
    stayed: tuple[bool, ...]
    """Whether each thing that had to stay is still there."""
    ground: bool
    """Whether the ground is still the same."""

    @property
    def right(self) -> bool:
        """Whether the edit was made and nothing else changed."""
        return self.target.right and self.ground and all(self.stayed)


def judge(facts: Sequence[Fact], total: int, pixels: UInt8[np.ndarray, "side side 3"]) -> Judgement:
    """Judges a picture.

    Args:
      facts: what the text states of the things; not of the ground, which the scorer does not name.
      total: how many things the picture must have, of whatever kind.
      pixels: the picture, of any size.

    Raises:
      ValueError: a fact is about the ground.
    """
    seen = find_things(pixels)
    return Judgement(tuple(holds(fact, seen) for fact in facts), len(seen) == total, seen)


def judge_edit(
    facts: Sequence[Fact],
    total: int,
    unchanged: Sequence[Thing],
    source: UInt8[np.ndarray, "side side 3"],
    pixels: UInt8[np.ndarray, "side side 3"],
) -> EditJudgement:
    """Judges an edited picture.

    Args:
      facts: what must be true after the edit.
      total: how many things there must be after the edit.
      unchanged: the things of the source that the edit leaves as they are.
      source: the picture before the edit, of any size.
      pixels: the picture after the edit, of any size.

    Raises:
      ValueError: a fact is about the ground.
    """
    target = judge(facts, total, pixels)
    stayed = tuple(any(_is_same(thing, seen) for seen in target.seen) for thing in unchanged)
    return EditJudgement(target, stayed, ground_difference(resize(source), resize(pixels)) < _OTHER_GROUND)


def _is_same(thing: Thing, seen: Seen) -> bool:
    """Whether a thing was found in its place. Two things are never so close that both fit."""
    alike = (thing.shape, thing.colour, thing.size) == (seen.shape, seen.colour, seen.size)
    return alike and max(abs(thing.centre.x - seen.centre.x), abs(thing.centre.y - seen.centre.y)) <= _MOVED
