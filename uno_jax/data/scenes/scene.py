"""The contents of a scene: things (shape, colour, size, place) on a ground."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Rgb = tuple[int, int, int]

SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "diamond", "cross")

COLOURS: dict[str, Rgb] = {
    "red": (214, 40, 40),
    "orange": (244, 140, 30),
    "yellow": (242, 214, 40),
    "green": (46, 160, 67),
    "cyan": (60, 196, 210),
    "blue": (46, 84, 214),
    "purple": (134, 60, 184),
    "pink": (242, 124, 184),
}
"""Saturated colours of things. Those of grounds (`GROUNDS`) have almost no saturation, so the scorer can separate
them."""

GROUNDS: dict[str, tuple[Rgb, Rgb]] = {
    "white": ((255, 255, 255), (226, 228, 232)),
    "grey": ((190, 190, 190), (158, 160, 162)),
    "dark": ((40, 40, 44), (72, 72, 74)),
    "cream": ((252, 246, 232), (232, 224, 208)),
}
"""Grounds by name, each with the two colours of its gradient or texture."""

SIZES: dict[str, float] = {"small": 0.26, "large": 0.42}
"""Side of the bounding square of a thing, as a fraction of the picture's side."""

GroundKind = Literal["plain", "gradient", "texture"]
GROUND_KINDS: tuple[GroundKind, ...] = get_args(GroundKind)

LARGEST_COUNT = 6
MOST_LARGE = 3
"""Scenes with more things have only small ones."""


class Place(NamedTuple):
    """A point of the picture, as fractions of its side from the left and from the top."""

    x: float
    y: float


@dataclass(frozen=True)
class Thing:
    """One shape of a scene."""

    shape: str
    colour: str
    size: str
    centre: Place
    """Centre of the bounding square."""


@dataclass(frozen=True)
class Ground:
    """What the things lie on."""

    name: str
    """A key of `GROUNDS`."""
    kind: GroundKind


@dataclass(frozen=True)
class Scene:
    """Contents of a picture. Things do not touch each other or the border."""

    things: tuple[Thing, ...]
    ground: Ground
