"""Cuts a picture of a scene into coloured pieces on a ground.

Things have saturated colours, grounds almost none. So a pixel is compared with the ground by its chroma, which is its
colour without the grey part. The chroma of a mixture of thing and ground lies between those of both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Integer, UInt8
from PIL import Image
from scipy import ndimage

from uno_jax.data.scenes.scene import COLOURS

SIDE = 64
"""Side of the pictures in which pieces are found."""

SPECK = 25
"""Smallest area of a piece in pixels: less than a third of the smallest thing that is drawn."""

_FAINT = 30.0  # strength of the palest thing is 83, that of the yellowest ground 17
_EDGE = 0.5  # strength at the edge of a piece, relative to its inside
_MARGIN = 3  # pixels of ground around a piece in its crop
_ONE_HUE = 0.23  # hues that differ less, in radians, are shades of one colour; orange and yellow differ by 0.38
_CELL = 8  # side of the squares in which grounds are compared
_EIGHT = np.ones((3, 3), bool)  # neighbours along diagonals too

_CHROMA = np.array([[1, 1], [-1, 1], [0, -2]], np.float32) / np.sqrt(np.array([2, 6], np.float32))
"""Axes of chroma in RGB, orthonormal and across grey: green to red, and blue to yellow."""


class Piece(NamedTuple):
    """A connected area of one colour, in a crop of the picture."""

    share: Float32[np.ndarray, "height width"]
    """How much of each pixel is the piece, 0 to 1. The rest is ground."""
    mask: Bool[np.ndarray, "height width"]
    """Pixels of the piece."""
    extent: Bool[np.ndarray, "height width"]
    """Pixels of the piece, and what it covers by half or more in the picture as it is: smoothing takes thin tips."""
    left: int
    """First column of the crop."""
    top: int
    """First row of the crop."""
    colour: Float32[np.ndarray, " 3"]
    """Mean RGB of its inside."""


class _Field(NamedTuple):
    """A smoothed picture and how its pixels differ from the ground."""

    colours: Float32[np.ndarray, "height width 3"]
    chroma: Float32[np.ndarray, "height width 2"]
    """Chroma without that of the ground."""
    strength: Float32[np.ndarray, "height width"]
    """Length of `chroma`."""
    sharp: Float32[np.ndarray, "height width 2"]
    """Chroma of the picture as it is, without that of the ground."""
    nearest: Integer[np.ndarray, "height width"]
    """Index of the colour whose direction from the ground is nearest."""

    def crop(self, rows: slice, columns: slice) -> _Field:
        return _Field(*(part[rows, columns] for part in self))


def resize(pixels: UInt8[np.ndarray, "side side 3"]) -> UInt8[np.ndarray, "64 64 3"]:
    """Scales a picture to `SIDE`."""
    if len(pixels) == SIDE:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def cut(pixels: UInt8[np.ndarray, "64 64 3"]) -> list[Piece]:
    """Returns the pieces of a picture. Areas smaller than `SPECK` are none, and belong to a piece that is near."""
    field = _analyse(pixels)
    numbered = _number(field)
    areas = np.bincount(numbered.ravel())
    numbered = np.where(areas[numbered] < SPECK, 0, numbered)
    boxes = ndimage.find_objects(numbered)
    return [_piece(field, numbered, number, box) for number, box in enumerate(boxes, 1) if box is not None]


def divide(piece: Piece) -> Iterator[list[Piece]]:
    """Yields the ways to divide a piece at necks that are less than half as thick as what they join."""
    depth = ndimage.distance_transform_cdt(np.pad(piece.mask, 1), "chessboard")[1:-1, 1:-1]
    for neck in range(1, int(depth.max()) // 2 + 1):
        kernels, number = ndimage.label(depth > neck, _EIGHT)
        if number > 1 and min(ndimage.maximum(depth, kernels, range(1, number + 1))) > 2 * neck:
            near = ndimage.distance_transform_edt(kernels == 0, return_distances=False, return_indices=True)
            owner = kernels[tuple(near)]
            parts = [owner == part for part in range(1, number + 1)]
            yield [
                piece._replace(share=piece.share * part, mask=piece.mask & part, extent=piece.extent & part)
                for part in parts
            ]


def ground_difference(a: UInt8[np.ndarray, "64 64 3"], b: UInt8[np.ndarray, "64 64 3"]) -> float:
    """Compares two pictures where both show ground.

    Returns:
      The root mean square, over small squares of the picture, of the difference of their mean colours (0 to 255).
    """
    fields = _analyse(a), _analyse(b)
    coloured = (fields[0].strength > _FAINT) | (fields[1].strength > _FAINT)
    shown = ~ndimage.binary_dilation(coloured, _EIGHT, 2)

    def sums(values: Float32[np.ndarray, "64 64 channels"]) -> Float32[np.ndarray, "8 8 channels"]:
        sums: np.ndarray = values.reshape(SIDE // _CELL, _CELL, SIDE // _CELL, _CELL, -1).sum(axis=(1, 3))
        return sums

    weights = sums(shown[..., None].astype(np.float32))
    differences = sums((fields[0].colours - fields[1].colours) * shown[..., None]) / np.maximum(weights, 1)
    seen = weights[..., 0] >= _CELL**2 / 4
    return float(np.sqrt(np.mean(differences[seen] ** 2))) if seen.any() else 0.0


def _analyse(pixels: UInt8[np.ndarray, "height width 3"]) -> _Field:
    exact = pixels.astype(np.float32)
    colours = _smooth(exact)
    chroma = colours @ _CHROMA
    faint = np.hypot(chroma[..., 0], chroma[..., 1]) < _FAINT
    ground = np.median(chroma[faint], axis=0) if faint.any() else np.zeros(2, np.float32)
    chroma = chroma - ground
    towards = np.array(list(COLOURS.values()), np.float32) @ _CHROMA - ground
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    strength = np.hypot(chroma[..., 0], chroma[..., 1])
    return _Field(colours, chroma, strength, exact @ _CHROMA - ground, np.argmax(chroma @ towards.T, axis=-1))


def _smooth(colours: Float32[np.ndarray, "height width 3"]) -> Float32[np.ndarray, "height width 3"]:
    """Averages each pixel with its neighbours, with binomial weights."""
    rows = np.pad(colours, ((1, 1), (0, 0), (0, 0)), mode="edge")
    colours = (rows[:-2] + 2 * rows[1:-1] + rows[2:]) / 4
    columns = np.pad(colours, ((0, 0), (1, 1), (0, 0)), mode="edge")
    smooth: np.ndarray = (columns[:, :-2] + 2 * columns[:, 1:-1] + columns[:, 2:]) / 4
    return smooth


def _number(field: _Field) -> Integer[np.ndarray, "height width"]:
    """Numbers the connected areas of one colour from 1. Ground is 0."""
    numbered, count = ndimage.label(_coloured(field), _EIGHT)
    cells = numbered * len(COLOURS) + field.nearest
    areas = np.bincount(cells.ravel(), minlength=(count + 1) * len(COLOURS)).reshape(count + 1, -1)
    for number in 1 + np.flatnonzero((areas[1:] >= SPECK).sum(axis=1) > 1):
        own = numbered == number
        colours = np.flatnonzero(areas[number] >= SPECK)
        hues = [np.arctan2(*field.chroma[own & (field.nearest == colour)].mean(axis=0)) for colour in colours]
        gaps = np.abs((np.subtract.outer(hues, hues) + np.pi) % (2 * np.pi) - np.pi)
        groups = np.argmax(gaps < _ONE_HUE, axis=1)
        if groups.any():
            numbered[own] = 0
            for group in np.unique(groups):
                parts, found = ndimage.label(own & np.isin(field.nearest, colours[groups == group]), _EIGHT)
                numbered[parts > 0] = parts[parts > 0] + count
                count += found
    result: np.ndarray = numbered
    return result


def _coloured(field: _Field) -> Bool[np.ndarray, "height width"]:
    """Returns the pixels that differ from the ground by half as much as the insides of things of their colour."""
    coloured = field.strength > _FAINT
    needed = np.zeros(len(COLOURS))
    for colour in np.unique(field.nearest[coloured]):
        needed[colour] = _EDGE * np.percentile(field.strength[coloured & (field.nearest == colour)], 90)
    seen: np.ndarray = coloured & (field.strength > needed[field.nearest])
    return seen


def _piece(
    field: _Field, numbered: Integer[np.ndarray, "height width"], number: int, box: tuple[slice, slice]
) -> Piece:
    rows, columns = (slice(max(side.start - _MARGIN, 0), side.stop + _MARGIN) for side in box)
    numbered, field = numbered[rows, columns], field.crop(rows, columns)
    mask = numbered == number
    inside = mask & (field.strength >= np.median(field.strength[mask]))
    full = field.chroma[inside].mean(axis=0)
    along = full / (full @ full)
    others = (numbered > 0) & ~mask
    near = ndimage.binary_dilation(mask, _EIGHT, 2) & ~others
    share = np.clip(field.chroma @ along, 0, 1) * near
    extent = mask | ((field.sharp @ along > 0.5) & near)
    return Piece(share, mask, extent, columns.start, rows.start, field.colours[inside].mean(axis=0))
