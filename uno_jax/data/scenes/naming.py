"""Names of single things, as questions and instructions use them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from uno_jax.data.scenes.facts import area_of
from uno_jax.data.scenes.scene import Scene, Thing
from uno_jax.data.scenes.words import AREA_WORDS, COLOUR_WORDS, SHAPE_WORDS, SIZE_WORDS, article

_ATTRIBUTES: Mapping[str, Callable[[Thing], str]] = {
    "size": lambda thing: thing.size,
    "colour": lambda thing: thing.colour,
    "area": area_of,
}
_NAMES = ((), ("colour",), ("size",), ("area",), ("colour", "area"))
"""Attributes that a name says beside the shape; of several names the first that fits one thing only."""


def name_of(thing: Thing, scene: Scene, without: str = "") -> str | None:
    """Names a thing of a scene so that no other is meant, such as `the star`, `the red star`, `the star at the top`.

    Returns None if there is no such name without the attribute `without`: `size`, `colour`, `area` or none.
    """
    for attributes in _NAMES:
        alike = [
            other
            for other in scene.things
            if other.shape == thing.shape
            and all(_ATTRIBUTES[attribute](other) == _ATTRIBUTES[attribute](thing) for attribute in attributes)
        ]
        if len(alike) == 1 and without not in attributes:
            return "the " + _noun_phrase(
                thing.shape,
                colour=thing.colour if "colour" in attributes else "",
                size=thing.size if "size" in attributes else "",
                area=area_of(thing) if "area" in attributes else "",
            )
    return None


def any_of_kind(shape: str, colour: str = "", size: str = "", area: str = "") -> str:
    """Returns such as `a small red star at the top`."""
    phrase = _noun_phrase(shape, colour, size, area)
    return f"{article(phrase)} {phrase}"


def _noun_phrase(shape: str, colour: str, size: str, area: str) -> str:
    words = (
        SIZE_WORDS[size][0] if size else "",
        COLOUR_WORDS[colour][0] if colour else "",
        SHAPE_WORDS[shape][0].one,
        AREA_WORDS[area][0] if area else "",
    )
    return " ".join(filter(None, words))
