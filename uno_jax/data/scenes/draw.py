"""Pictures of scenes, drawn from vectors and anti-aliased."""

from __future__ import annotations

import io
import math

import numpy as np
import resvg_py
from jaxtyping import UInt8
from PIL import Image

from uno_jax.data.scenes.scene import COLOURS, GROUNDS, SIZES, Ground, Rgb, Scene, Thing

_UNITS = 1000.0  # side of the drawing in SVG units
_TILES = 8  # squares of a texture along each side


def draw_scene(scene: Scene, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Draws a scene as a square RGB picture of `size` pixels."""
    body = _ground(scene.ground) + "".join(_thing(thing) for thing in scene.things)
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_UNITS:g} {_UNITS:g}">{body}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))


def _ground(ground: Ground) -> str:
    first, second = (_hex(colour) for colour in GROUNDS[ground.name])
    whole = f'<rect width="{_UNITS:g}" height="{_UNITS:g}" fill="{{}}"/>'
    if ground.kind == "plain":
        return whole.format(first)
    if ground.kind == "gradient":
        stops = f'<stop offset="0" stop-color="{first}"/><stop offset="1" stop-color="{second}"/>'
        return f'<linearGradient id="g" x1="0" y1="0" x2="0" y2="1">{stops}</linearGradient>{whole.format("url(#g)")}'
    side = _UNITS / _TILES
    squares = "".join(
        f'<rect x="{column * side:g}" y="{row * side:g}" width="{side:g}" height="{side:g}" fill="{second}"/>'
        for row in range(_TILES)
        for column in range(_TILES)
        if (row + column) % 2
    )
    return whole.format(first) + squares


def _thing(thing: Thing) -> str:
    scale = _UNITS * SIZES[thing.size] / 2
    x, y = (_UNITS * part for part in thing.centre)
    place = f'transform="translate({x:g} {y:g}) scale({scale:g})" fill="{_hex(COLOURS[thing.colour])}"'
    return f"<g {place}>{_OUTLINES[thing.shape]}</g>"


def _polygon(*points: tuple[float, float]) -> str:
    return f'<polygon points="{" ".join(f"{x:.4f},{y:.4f}" for x, y in points)}"/>'


def _star() -> str:
    radii = (1.0, 0.42)
    return _polygon(
        *(
            (radii[i % 2] * math.sin(math.pi * i / 5), 0.05 - radii[i % 2] * math.cos(math.pi * i / 5))
            for i in range(10)
        )
    )


_OUTLINES = {
    "circle": '<circle r="0.95"/>',
    "square": '<rect x="-0.85" y="-0.85" width="1.7" height="1.7"/>',
    "triangle": _polygon((0, -0.9), (1, 0.85), (-1, 0.85)),
    "star": _star(),
    "heart": '<path d="M0 0.95 C-0.5 0.5 -1 0.1 -1 -0.4 A0.5 0.5 0 0 1 0 -0.5 A0.5 0.5 0 0 1 1 -0.4 '
    'C1 0.1 0.5 0.5 0 0.95 Z"/>',
    "ring": '<path fill-rule="evenodd" d="M-0.97 0 A0.97 0.97 0 1 0 0.97 0 A0.97 0.97 0 1 0 -0.97 0 Z '
    'M-0.48 0 A0.48 0.48 0 1 0 0.48 0 A0.48 0.48 0 1 0 -0.48 0 Z"/>',
    "diamond": _polygon((0, -1), (0.72, 0), (0, 1), (-0.72, 0)),
    "cross": _polygon(
        (-0.3, -0.95), (0.3, -0.95), (0.3, -0.3), (0.95, -0.3), (0.95, 0.3), (0.3, 0.3),
        (0.3, 0.95), (-0.3, 0.95), (-0.3, 0.3), (-0.95, 0.3), (-0.95, -0.3), (-0.3, -0.3),
    ),
}  # fmt: skip
"""Outline of each shape within the square [-1, 1] x [-1, 1], y downwards."""


def _hex(colour: Rgb) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
