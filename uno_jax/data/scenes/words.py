"""The words of texts about scenes. Of several words for one thing, prompts use the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from uno_jax.data.scenes.facts import Direction
from uno_jax.data.scenes.scene import GroundKind


class Noun(NamedTuple):
    """A word for one thing, and for several."""

    one: str
    many: str


SHAPE_WORDS: Mapping[str, Sequence[Noun]] = {
    "circle": (Noun("circle", "circles"), Noun("disc", "discs")),
    "square": (Noun("square", "squares"),),
    "triangle": (Noun("triangle", "triangles"),),
    "star": (Noun("star", "stars"),),
    "heart": (Noun("heart", "hearts"),),
    "ring": (Noun("ring", "rings"), Noun("hoop", "hoops")),
    "diamond": (Noun("diamond", "diamonds"), Noun("rhombus", "rhombuses")),
    "cross": (Noun("cross", "crosses"), Noun("plus", "pluses")),
}

COLOUR_WORDS: Mapping[str, Sequence[str]] = {
    "red": ("red",),
    "orange": ("orange",),
    "yellow": ("yellow",),
    "green": ("green",),
    "cyan": ("cyan", "turquoise"),
    "blue": ("blue",),
    "purple": ("purple", "violet"),
    "pink": ("pink",),
}

SIZE_WORDS: Mapping[str, Sequence[str]] = {"small": ("small", "little", "tiny"), "large": ("large", "big")}

NUMBER_WORDS: Mapping[int, str] = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}

DIRECTION_WORDS: Mapping[Direction, Sequence[str]] = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}

BESIDE_WORDS: Mapping[Direction, str] = {
    "left of": "to its left",
    "right of": "to its right",
    "above": "above it",
    "below": "below it",
}
"""`A with B to its left`: where B lies from A."""

AREA_WORDS: Mapping[str, Sequence[str]] = {
    "top left": ("at the top left", "in the top left corner"),
    "top": ("at the top",),
    "top right": ("at the top right", "in the top right corner"),
    "left": ("at the left", "on the left"),
    "centre": ("in the centre", "in the middle"),
    "right": ("at the right", "on the right"),
    "bottom left": ("at the bottom left", "in the bottom left corner"),
    "bottom": ("at the bottom",),
    "bottom right": ("at the bottom right", "in the bottom right corner"),
}

GROUND_WORDS: Mapping[str, Sequence[str]] = {
    "white": ("white",),
    "grey": ("grey",),
    "dark": ("dark",),
    "cream": ("cream",),
}

GROUND_KIND_WORDS: Mapping[GroundKind, Sequence[str]] = {
    "plain": ("plain",),
    "gradient": ("shaded",),
    "texture": ("checkered",),
}

BACKGROUND: Sequence[str] = ("ground", "background")


def article(word: str) -> str:
    """Returns `a` or `an`, as it stands before a word of this file."""
    return "an" if word.startswith("orange") else "a"


def join(parts: Sequence[str]) -> str:
    """Joins parts as `a`, `a and b`, or `a, b and c`."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
