"""Combinations that no training scene has, so that generalisation is measured apart from memory.

Every shape, every colour, every number and every direction is common in training; only these combinations are not.
"""

from __future__ import annotations

from collections.abc import Sequence

from uno_jax.data.scenes.facts import DIRECTIONS, OPPOSITE, Fact, Kind, Number, Relation, holds
from uno_jax.data.scenes.scene import COLOURS, LARGEST_COUNT, SHAPES, Scene

# Steps of 3 through the 8 shapes reach all of them, so no shape and no colour is held out twice.
PAIRS = tuple(
    Number(Kind(SHAPES[(3 * i + 1) % len(SHAPES)], colour), 1, or_more=True) for i, colour in enumerate(COLOURS)
)
"""A shape of a colour, once for each colour and once for each shape."""

COUNTS = tuple(Number(Kind(SHAPES[3 * count % len(SHAPES)]), count) for count in range(2, LARGEST_COUNT + 1))
"""A number of one shape, once for each number."""

RELATIONS = tuple(
    Relation(Kind(shape), DIRECTIONS[i % len(DIRECTIONS)], Kind(SHAPES[(i + 3) % len(SHAPES)]))
    for i, shape in enumerate(SHAPES)
)
"""Two shapes in a direction, each shape twice and each pair of shapes at most once."""

HELD_OUT: tuple[Fact, ...] = (*PAIRS, *COUNTS, *RELATIONS)


def held_out_in(scene: Scene, facts: Sequence[Fact] | None = None) -> tuple[Fact, ...]:
    """Returns the held-out combinations that a scene has; with `facts`, only those that the facts name."""
    return tuple(
        fact
        for fact in HELD_OUT
        if holds(fact, scene.things) and (facts is None or any(_names(given, fact) for given in facts))
    )


def held_out_named(facts: Sequence[Fact]) -> tuple[Fact, ...]:
    """Returns the held-out combinations that facts name."""
    return tuple(fact for fact in HELD_OUT if any(_names(given, fact) for given in facts))


def _names(given: Fact, held_out: Fact) -> bool:
    """Whether a fact implies a held-out combination."""
    match given, held_out:
        case Number(kind, count), Number(wanted, _, or_more=True):
            return count > 0 and (kind.shape, kind.colour) == (wanted.shape, wanted.colour)
        case Number(kind, count), Number(wanted, wanted_count):
            return (kind.shape, count) == (wanted.shape, wanted_count)
        case Relation(first, direction, second), Relation(one, way, other):
            named = (first.shape, direction, second.shape)
            return named in ((one.shape, way, other.shape), (other.shape, OPPOSITE[way], one.shape))
    return False
