"""Facts about scenes: exact numbers, relations by a clear distance, areas, grounds."""

import pytest

from uno_jax.data.scenes.facts import Kind, Location, Number, OnGround, Relation, area_of, holds
from uno_jax.data.scenes.scene import Ground, Place, Thing

STAR = Thing("star", "red", "large", Place(0.25, 0.25))
OTHER_STAR = Thing("star", "blue", "small", Place(0.5, 0.3))
CIRCLE = Thing("circle", "blue", "small", Place(0.75, 0.8))
THINGS = (STAR, OTHER_STAR, CIRCLE)
GROUND = Ground("dark", "texture")


@pytest.mark.parametrize(
    ("fact", "true"),
    [
        (Number(Kind("star"), 2), True),
        (Number(Kind("star"), 1), False),
        (Number(Kind("star"), 1, or_more=True), True),
        (Number(Kind(colour="blue"), 2), True),
        (Number(Kind("star", "blue", "large"), 0), True),
        (Number(Kind(), 3), True),
        (Relation(Kind("star"), "left of", Kind("circle")), True),
        (Relation(Kind("circle"), "below", Kind("star")), True),
        (Relation(Kind("circle"), "left of", Kind("star")), False),
        (Relation(Kind("star", "blue"), "below", Kind("star", "red")), False),
        (Relation(Kind("circle"), "left of", Kind("circle")), False),
        (Location(Kind("star"), "top left"), True),
        (Location(Kind("star"), "top left", 2), False),
        (Location(Kind("circle"), "top"), False),
        (OnGround("dark"), True),
        (OnGround("dark", "texture"), True),
        (OnGround("dark", "plain"), False),
        (OnGround("white"), False),
    ],
)
def test_facts_hold_or_not(fact, true):
    assert holds(fact, THINGS, GROUND) == true


def test_areas_are_thirds_of_the_picture():
    assert [area_of(thing) for thing in THINGS] == ["top left", "top", "bottom right"]


def test_a_fact_about_the_ground_needs_the_ground():
    with pytest.raises(ValueError, match="judged on a ground"):
        holds(OnGround("dark"), THINGS)
