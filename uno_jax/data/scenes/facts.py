"""Facts that a text states about a scene, and whether they hold for given things.

Facts are judged on things of a scene (is a generated caption true?) and on things that the scorer finds in a picture
(does it follow the prompt?). Both have a shape, a colour, a size and a centre. Facts about the ground are judged on a
scene only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from uno_jax.data.scenes.scene import Ground, GroundKind, Thing

Direction = Literal["left of", "right of", "above", "below"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
OPPOSITE: dict[Direction, Direction] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}

AREAS = (
    ("top left", "top", "top right"),
    ("left", "centre", "right"),
    ("bottom left", "bottom", "bottom right"),
)
"""Names of the nine equal areas of a picture, by row and column."""


@dataclass(frozen=True)
class Kind:
    """A kind of thing. None means any shape, any colour, any size."""

    shape: str | None = None
    colour: str | None = None
    size: str | None = None

    def fits(self, thing: Thing) -> bool:
        """Whether a thing is of this kind."""
        return all(
            wanted is None or wanted == found
            for wanted, found in (
                (self.shape, thing.shape),
                (self.colour, thing.colour),
                (self.size, thing.size),
            )
        )


@dataclass(frozen=True)
class Number:
    """There are exactly `count` things of a kind; with `or_more`, at least `count`."""

    kind: Kind
    count: int
    or_more: bool = False


@dataclass(frozen=True)
class Relation:
    """Some thing of a kind lies left of, right of, above or below some thing of another kind."""

    first: Kind
    direction: Direction
    second: Kind


@dataclass(frozen=True)
class Location:
    """At least `count` things of a kind have their centres in an area of `AREAS`."""

    kind: Kind
    area: str
    count: int = 1


@dataclass(frozen=True)
class OnGround:
    """The ground has a name, a key of `GROUNDS`, and is of a kind. None means any kind."""

    name: str
    kind: GroundKind | None = None


Fact = Number | Relation | Location | OnGround


def holds(fact: Fact, things: Sequence[Thing], ground: Ground | None = None) -> bool:
    """Whether a fact is true of the things of a picture and of the ground on which they lie.

    Raises:
      ValueError: the fact is about the ground, which is not given.
    """
    match fact:
        case Number(kind, count, or_more):
            found = sum(kind.fits(thing) for thing in things)
            return found >= count if or_more else found == count
        case Relation(first, direction, second):
            return any(
                a is not b and first.fits(a) and second.fits(b) and _lies(a, direction, b)
                for a in things
                for b in things
            )
        case Location(kind, area, count):
            return sum(kind.fits(thing) and area_of(thing) == area for thing in things) >= count
        case OnGround(name, ground_kind):
            if ground is None:
                raise ValueError(f"{fact} is judged on a ground, and none was given")
            return ground.name == name and ground_kind in (None, ground.kind)


def area_of(thing: Thing) -> str:
    """Returns the name of the area with the thing's centre."""
    column, row = (min(int(3 * x), 2) for x in thing.centre)
    return AREAS[row][column]


def _lies(a: Thing, direction: Direction, b: Thing) -> bool:
    """Whether the centre of `a` lies in a direction from that of `b`, by a tenth of the picture's side or more."""
    dx, dy = a.centre.x - b.centre.x, a.centre.y - b.centre.y
    towards = {"left of": -dx, "right of": dx, "above": -dy, "below": dy}[direction]
    return towards >= 0.1
