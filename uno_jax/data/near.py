"""Finds pictures that are nearly the same, by a hash of what they look like."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt8, UInt64
from PIL import Image

from uno_jax.data.plans import Pixels

BITS = 3
"""Bits in which the hashes of nearly equal pictures may differ."""
COLOUR = 8
"""Difference of their mean red, green and blue, at most."""
_BANDS = (0, 16, 32, 48)  # hashes that differ in fewer bits than there are bands agree in one of them


def difference_hash(pixels: Pixels) -> tuple[int, tuple[int, int, int]]:
    """Returns 64 bits, and the mean colour.

    The picture is averaged over 9 x 8 fields. Each bit says whether a field is brighter than the one to its left, so
    resizing, compression and brightness hardly change the bits. They see no detail that is smaller than a field, and no
    colour, for which there is the mean.
    """
    fields = np.asarray(Image.fromarray(pixels).resize((9, 8), Image.Resampling.BOX)).astype(np.int32)
    grey = fields.sum(axis=-1)
    bits = (grey[:, 1:] > grey[:, :-1]).reshape(-1)
    red, green, blue = (int(value) for value in fields.mean(axis=(0, 1)).round())
    return int.from_bytes(np.packbits(bits).tobytes(), "big"), (red, green, blue)


def near_identical(
    hashes: UInt64[np.ndarray, " pictures"], colours: UInt8[np.ndarray, "pictures 3"]
) -> Int[np.ndarray, "pairs 2"]:
    """Returns for each picture that nearly equals an earlier one its number and that of the first such picture.

    The time grows with the square of the number of pictures that agree in 16 bits of their hashes.

    Args:
      hashes: from `difference_hash`.
      colours: mean colours, from `difference_hash`.
    """
    count = len(hashes)
    first = np.full(count, count)
    for shift in _BANDS:
        band = (hashes >> np.uint64(shift)).astype(np.uint16)
        order = np.argsort(band, kind="stable")  # pictures of one band are in their own order
        band = band[order]
        places = np.arange(count)
        for distance in range(1, count):
            places = places[places < count - distance]
            places = places[band[places] == band[places + distance]]
            if not len(places):
                break
            earlier, later = order[places], order[places + distance]
            near = np.bitwise_count(hashes[earlier] ^ hashes[later]) <= BITS
            earlier, later = earlier[near], later[near]
            difference = np.abs(colours[earlier].astype(np.int16) - colours[later])
            close = np.all(difference <= COLOUR, axis=1)
            np.minimum.at(first, later[close], earlier[close])
    found = np.flatnonzero(first < count)
    return np.stack([found, first[found]], axis=1)
