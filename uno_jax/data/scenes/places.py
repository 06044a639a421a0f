"""Places for things: apart from each other, from the border, and clearly within one area of the picture.

Centres lie on a lattice, so that a small model learns to draw shapes: a shape between any two points of the lattice is
another pattern in the patches under it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from uno_jax.data.scenes.scene import SIZES, Place, Thing

GAP = 0.03
"""Smallest distance between bounding squares, and to the border, as a fraction of the picture's side."""

CLEARANCE = 0.04
"""Smallest distance of a centre to the border of its area, so that a text never names a doubtful area."""

LATTICE = 16
"""Points of the lattice along a side. At 64 pixels they are 4 pixels apart."""

_LOW = np.array((0, 1 / 3, 2 / 3)) + CLEARANCE
_HIGH = np.array((1 / 3, 2 / 3, 1)) - CLEARANCE
_TRIES = 32


def free_place(size: str, others: Sequence[Thing], draws: np.random.Generator) -> Place | None:
    """Draws a place for a thing of a size beside the others, or None if it finds none that is free.

    All areas are as likely before places that are not free are left out.

    Args:
      size: a key of `SIZES`.
      others: the things that are already there.
      draws: random numbers; a call takes the same number of them whatever it finds.
    """
    cells = draws.integers(3, size=(_TRIES, 2))
    low, high = (bound[cells] for bound in _bounds(size))
    return _first_free(low + np.floor((high - low + 1) * draws.random((_TRIES, 2))), size, others)


def nearest_place(size: str, centre: Place, others: Sequence[Thing]) -> Place | None:
    """Returns the place for a thing of a size that is nearest to a centre in its area, or None if it is not free."""
    low, high = (bound[np.minimum(3 * np.array(centre), 2).astype(int)] for bound in _bounds(size))
    return _first_free(np.clip(np.round(LATTICE * np.array(centre)), low, high)[None], size, others)


def _bounds(size: str) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
    """Returns the first and the last point of the lattice for a centre in each column or row of areas."""
    edge = SIZES[size] / 2 + GAP
    return np.ceil(LATTICE * np.maximum(_LOW, edge)), np.floor(LATTICE * np.minimum(_HIGH, 1 - edge))


def _first_free(points: Float[np.ndarray, "places 2"], size: str, others: Sequence[Thing]) -> Place | None:
    centres = points / LATTICE
    free = np.ones(len(centres), bool)
    for other in others:
        apart = (SIZES[size] + SIZES[other.size]) / 2 + GAP
        free &= (np.abs(centres - other.centre) >= apart).any(1)
    found = int(free.argmax())
    return Place(*centres[found].tolist()) if free[found] else None
