"""Finds the things in a picture of a scene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from uno_jax.data.scenes.outlines import Outline, recognise
from uno_jax.data.scenes.scene import COLOURS, SIZES, Thing
from uno_jax.data.scenes.segment import SIDE, Piece, cut, divide, resize

UNKNOWN = "unknown"
"""Shape or colour of a thing that resembles none of those with a name. It fits no kind with a shape or colour."""

_BOUNDARY = math.sqrt(SIZES["small"] * SIZES["large"])
_STRANGE = 0.11  # two neighbouring colours are 0.12 to 0.24 apart


class Box(NamedTuple):
    """A rectangle, as fractions of the picture's side."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Seen(Thing):
    """A thing that was found in a picture. Its shape and its colour may be `UNKNOWN`."""

    confidence: float
    """Correlation with the shape that it resembles most, at most 1."""
    box: Box
    """All of it, thin tips too."""
    area: float
    """Share of the picture that it covers."""


def find_things(pixels: UInt8[np.ndarray, "side side 3"]) -> tuple[Seen, ...]:
    """Finds the things in a picture of any size.

    Each connected area of one colour is a thing, whatever its shape, unless it is tiny. One of unknown shape is divided
    at thin necks if all its parts have shapes.
    """
    return tuple(_seen(*found) for piece in cut(resize(pixels)) for found in _recognise(piece))


def _recognise(piece: Piece) -> Sequence[tuple[Piece, Outline]]:
    outline = recognise(piece)
    if outline.shape is None:
        for parts in divide(piece):
            outlines = [recognise(part) for part in parts]
            if all(part.shape for part in outlines):
                return list(zip(parts, outlines, strict=True))
    return [(piece, outline)]


def _seen(piece: Piece, outline: Outline) -> Seen:
    rows, columns = (np.flatnonzero(piece.extent.any(axis=axis)) for axis in (1, 0))
    edges = (piece.left + columns[0], piece.top + rows[0], piece.left + columns[-1] + 1, piece.top + rows[-1] + 1)
    return Seen(
        shape=outline.shape or UNKNOWN,
        colour=_name_colour(piece.colour) or UNKNOWN,
        size="small" if outline.side < _BOUNDARY else "large",
        centre=outline.centre,
        confidence=outline.likeness,
        box=Box(*(float(edge / SIDE) for edge in edges)),
        area=float(np.mean(piece.mask) * piece.mask.size / SIDE**2),
    )


def _name_colour(rgb: Float[np.ndarray, " 3"]) -> str | None:
    """Returns the name of the nearest colour, or None if none is near."""
    distances = np.linalg.norm(_perceived(np.array(list(COLOURS.values()), float)) - _perceived(rgb), axis=-1)
    nearest = int(np.argmin(distances))
    return tuple(COLOURS)[nearest] if distances[nearest] < _STRANGE else None


def _perceived(rgb: Float[np.ndarray, "*colours 3"]) -> Float[np.ndarray, "*colours 3"]:
    """Converts sRGB (0 to 255) to Oklab with little weight on lightness, in which distances are perceived ones."""
    encoded = rgb / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    lab: np.ndarray = np.cbrt(linear @ _CONES.T) @ _LAB.T * (0.3, 1, 1)
    return lab


# The two matrices that define Oklab: linear sRGB to responses of the eye, and their cube roots to L, a, b.
_CONES = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])  # fmt: skip
_LAB = np.array([
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])  # fmt: skip
