"""Places for things: apart from each other, from the border, and clearly within one area of the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uno_jax.data.scenes.facts import AREAS
from uno_jax.data.scenes.scene import SIZES, Place, Thing

GAP = 0.03
"""Smallest distance between bounding squares, and to the border, as a fraction of the picture's side."""

CLEARANCE = 0.04
"""Smallest distance of a centre to the border of its area, so that a text never names a doubtful area."""

_LOW = np.array((0, 1 / 3, 2 / 3)) + CLEARANCE
_HIGH = np.array((1 / 3, 2 / 3, 1)) - CLEARANCE
_TRIES = 32


def free_place(size: str, others: Sequence[Thing], draws: np.random.Generator, area: str | None = None) -> Place | None:
    """Draws a place for a thing of a size beside the others, or None if it finds none that is free.

    All areas are as likely before places that are not free are left out.

    Args:
      size: a key of `SIZES`.
      others: the things that are already there.
      draws: random numbers; a call takes the same number of them whatever it finds.
      area: a name in `AREAS` in which the centre must lie; None means any.
    """
    if area is None:
        cells = draws.integers(3, size=(_TRIES, 2))
    else:
        cells = np.array([next((names.index(area), row) for row, names in enumerate(AREAS) if area in names)])
    edge = SIZES[size] / 2 + GAP
    low, high = np.maximum(_LOW, edge)[cells], np.minimum(_HIGH, 1 - edge)[cells]
    centres = low + (high - low) * draws.random((_TRIES, 2))
    free = np.ones(_TRIES, bool)
    for other in others:
        apart = (SIZES[size] + SIZES[other.size]) / 2 + GAP
        free &= (np.abs(centres - other.centre) >= apart).any(1)
    found = int(free.argmax())
    return Place(*centres[found].tolist()) if free[found] else None
