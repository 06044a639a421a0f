"""What a text says about a scene: groups of things, a relation, the ground."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import combinations

from uno_jax.data.scenes.facts import (
    DIRECTIONS,
    OPPOSITE,
    Direction,
    Fact,
    Kind,
    Location,
    Number,
    OnGround,
    Relation,
    area_of,
    holds,
)
from uno_jax.data.scenes.scene import Scene, Thing


@dataclass(frozen=True)
class Group:
    """Things that a text names together: so many of a kind, all in one area if it says where."""

    kind: Kind
    count: int = 1
    area: str | None = None


@dataclass(frozen=True)
class Description:
    """What a text says. A text names every thing of its scene once."""

    groups: tuple[Group, ...]
    direction: Direction | None = None
    """Where the first of two groups lies from the second."""
    ground: OnGround | None = None

    @property
    def total(self) -> int:
        """The number of things."""
        return sum(group.count for group in self.groups)

    @property
    def consistent(self) -> bool:
        """Whether no thing may be counted twice, and a relation has two groups."""
        kinds = {group.kind for group in self.groups}
        overlap = any(_overlap(a, b) for a, b in combinations(kinds, 2))
        return not overlap and (self.direction is None or len(self.groups) == len(kinds) == 2)


def facts_of(description: Description) -> tuple[Fact, ...]:
    """Returns the facts that a description states."""
    numbers: Counter[Kind] = Counter()
    areas: Counter[tuple[Kind, str]] = Counter()
    for group in description.groups:
        numbers[group.kind] += group.count
        if group.area is not None:
            areas[group.kind, group.area] += group.count
    facts: list[Fact] = [Number(kind, count) for kind, count in numbers.items()]
    facts += [Location(kind, area, count) for (kind, area), count in areas.items()]
    if description.direction is not None:
        first, second = (group.kind for group in description.groups)
        facts.append(Relation(first, description.direction, second))
    return (*facts, description.ground) if description.ground else tuple(facts)


def is_true(description: Description, scene: Scene) -> bool:
    """Whether all facts hold for a scene and it has no other thing than those described."""
    things, ground = scene.things, scene.ground
    return description.total == len(things) and all(holds(fact, things, ground) for fact in facts_of(description))


def describe(
    scene: Scene,
    *,
    colour: bool = False,
    size: bool = False,
    area: bool = False,
    ground: bool = False,
    ground_kind: bool = False,
) -> Description:
    """Describes a scene by shapes and the given attributes, the same ones for all things."""
    groups: Counter[tuple[Kind, str | None]] = Counter()
    for thing in scene.things:
        kind = Kind(thing.shape, thing.colour if colour else None, thing.size if size else None)
        groups[kind, area_of(thing) if area else None] += 1
    on = OnGround(scene.ground.name, scene.ground.kind if ground_kind else None) if ground else None
    return Description(tuple(Group(kind, count, where) for (kind, where), count in groups.items()), None, on)


def directions_of(a: Thing, b: Thing) -> tuple[Direction, ...]:
    """Returns the directions in which `a` lies clearly from `b`: by a fifth of the picture's side or more."""
    dx, dy = a.centre.x - b.centre.x, a.centre.y - b.centre.y
    distances = {"left of": -dx, "right of": dx, "above": -dy, "below": dy}
    return tuple(direction for direction in DIRECTIONS if distances[direction] >= 0.2)


def turned(description: Description) -> Description:
    """Returns the same description with its two groups named the other way round."""
    first, second = description.groups
    direction = description.direction and OPPOSITE[description.direction]
    return replace(description, groups=(second, first), direction=direction)


def _overlap(a: Kind, b: Kind) -> bool:
    """Whether a thing may be of both kinds."""
    pairs = ((a.shape, b.shape), (a.colour, b.colour), (a.size, b.size))
    return all(one is None or other is None or one == other for one, other in pairs)
