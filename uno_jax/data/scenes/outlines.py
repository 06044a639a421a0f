"""Recognises the outline of a piece by comparison with drawn things."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8
from scipy import ndimage

from uno_jax.data.scenes.draw import draw_scene
from uno_jax.data.scenes.scene import SHAPES, SIZES, Ground, Place, Scene, Thing
from uno_jax.data.scenes.segment import SIDE, Piece, cut

LIKENESS = 0.7
"""Smallest correlation of a piece with a shape that it is recognised as, where 1 is a drawn shape."""

_SIDES = (0.15, 0.63)  # sides of shapes as fractions of the picture's; those that are drawn are 0.26 and 0.42
_GRID = 26  # samples along each side of an image
_REACH = 2.6  # half its side, relative to the spread; the arms of a star end at 2
_COARSE = 2.0  # standard deviation, in samples, of what is subtracted from an image
_BLURS = (0.0, 1.2, 2.0)  # standard deviations in pixels
_SHIFTS = (0.0, 0.5)  # in pixels
_TURNED = {
    "triangle": (90, 180, 270),
    "heart": (-45, -30, 30, 45, 180),
    "square": (-30, -20, 20, 30, 45),
    "diamond": (-25, 25),
    "cross": (45,),
}
"""Angles, in degrees, at which a shape would otherwise be mistaken for another one: a turned square for a circle."""


class Outline(NamedTuple):
    """What a piece looks like."""

    shape: str | None
    """A name in `SHAPES`, or None if it resembles none of them enough or is much too small or large."""
    likeness: float
    """Correlation with what it resembles most, at most 1."""
    centre: Place
    """Centre of the bounding square of the shape; without a shape, that of the bounding box."""
    side: float
    """Side of that square, as a fraction of the picture's side; without a shape, the longer side of the box."""


class _Frame(NamedTuple):
    """Centre of mass of a piece in the picture, and root mean square distance from it, in pixels."""

    x: float
    y: float
    spread: float


class _Models(NamedTuple):
    """Images of drawn outlines, and how their bounding squares lie in their frames."""

    shapes: tuple[str | None, ...]
    images: Float32[np.ndarray, "models samples"]
    squares: Float[np.ndarray, "models 3"]
    """Offset of the centre in x and y, and side, all relative to the spread."""


def recognise(piece: Piece) -> Outline:
    """Returns the drawn outline that a piece resembles most, in any size near those that are drawn."""
    models = _draw_models()
    frame, image = _normalise(piece)
    likenesses = models.images @ image
    best = int(np.argmax(likenesses))
    shape, likeness = models.shapes[best], float(likenesses[best])
    dx, dy, side = frame.spread / SIDE * models.squares[best]
    if shape and likeness >= LIKENESS and _SIDES[0] <= side <= _SIDES[1]:
        return Outline(shape, likeness, Place(float(frame.x / SIDE + dx), float(frame.y / SIDE + dy)), float(side))
    rows, columns = (np.flatnonzero(piece.mask.any(axis=axis)) for axis in (1, 0))
    x, y = piece.left + (columns[0] + columns[-1] + 1) / 2, piece.top + (rows[0] + rows[-1] + 1) / 2
    longer = max(np.ptp(columns), np.ptp(rows)) + 1
    return Outline(None, likeness, Place(float(x / SIDE), float(y / SIDE)), float(longer / SIDE))


def _normalise(piece: Piece) -> tuple[_Frame, Float32[np.ndarray, " samples"]]:
    """Samples a piece around its centre of mass, at distances relative to its spread.

    Returns:
      The frame, and the image: without what is common to all compact outlines, its blurred version, with mean 0 and
      norm 1.
    """
    share = piece.share
    total = float(share.sum())
    ys, xs = (np.arange(length, dtype=np.float32) for length in share.shape)
    down, across = share.sum(axis=1), share.sum(axis=0)
    y, x = float(down @ ys) / total, float(across @ xs) / total
    spread = math.sqrt(float(down @ (ys - y) ** 2 + across @ (xs - x) ** 2) / total)
    step = np.float32(2 * _REACH / _GRID * spread)
    width = max(np.float32(1), step)
    steps = (np.arange(_GRID, dtype=np.float32)[:, None] - (_GRID - 1) / 2) * step
    # Rows of weights that fall linearly with the distance from the sample.
    rows, columns = (
        np.maximum(0, 1 - np.abs(np.float32(centre) + steps - at) / width) for centre, at in ((y, ys), (x, xs))
    )
    image = rows @ share @ columns.T
    image = (image - ndimage.gaussian_filter(image, _COARSE)).ravel()
    image -= image.mean()
    return _Frame(piece.left + x + 0.5, piece.top + y + 0.5, spread), image / np.linalg.norm(image)


@functools.cache
def _draw_models() -> _Models:
    """Draws every shape in every size, sharp and blurred, and outlines that could be mistaken for a shape."""
    shapes: list[str | None] = []
    models = []
    for shape, size, blur in itertools.product(SHAPES, SIZES, _BLURS):
        shapes.append(shape)
        models.append(_draw_model(shape, size, blur, np.eye(2)))
    for shape, change in _distorted():
        shapes.append(None)
        models.append(_draw_model(shape, "large", 0, change))
    images, squares = zip(*models, strict=True)
    return _Models(tuple(shapes), np.stack(images), np.stack(squares))


def _distorted() -> Iterator[tuple[str, Float[np.ndarray, "2 2"]]]:
    """Yields shapes with linear maps after which they are none of those that are drawn: turned and stretched ones."""
    for shape, angles in _TURNED.items():
        for degrees in angles:
            yield shape, _turn(degrees)
    for degrees in (0, 45, 90, 135):
        yield "circle", _turn(degrees) @ np.diag([0.8, 1.4]) @ _turn(-degrees)


def _turn(degrees: float) -> Float[np.ndarray, "2 2"]:
    angle = math.radians(degrees)
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _draw_model(
    shape: str, size: str, blur: float, change: Float[np.ndarray, "2 2"]
) -> tuple[Float32[np.ndarray, " samples"], Float[np.ndarray, " 3"]]:
    """Returns the mean image and square of a drawn thing over places relative to the pixels."""
    images, squares = [], []
    for dx, dy in itertools.product(_SHIFTS, _SHIFTS):
        centre = Place(0.5 + dx / SIDE, 0.5 + dy / SIDE)
        pixels = draw_scene(Scene((Thing(shape, "blue", size, centre),), Ground("white", "plain")), SIDE)
        pixels = _changed(pixels, change)
        (piece,) = cut(ndimage.gaussian_filter(pixels, (blur, blur, 0), mode="nearest"))
        frame, image = _normalise(piece)
        images.append(image)
        square = np.array([centre.x * SIDE - frame.x, centre.y * SIDE - frame.y, SIZES[size] * SIDE])
        squares.append(square / frame.spread)
    image = np.mean(images, axis=0)
    return image / np.linalg.norm(image), np.mean(squares, axis=0)


def _changed(
    pixels: UInt8[np.ndarray, "side side 3"], change: Float[np.ndarray, "2 2"]
) -> UInt8[np.ndarray, "side side 3"]:
    """Maps a picture linearly around its middle."""
    if np.array_equal(change, np.eye(2)):
        return pixels
    middle = np.full(2, SIDE / 2 - 0.5)
    channels = [
        ndimage.affine_transform(pixels[..., channel], change, middle - change @ middle, order=1, mode="nearest")
        for channel in range(3)
    ]
    return np.stack(channels, axis=-1)
