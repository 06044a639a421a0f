"""What lies on each patch of a picture of a scene, from which a vision encoder learns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from uno_jax.data.scenes.scene import COLOURS, SHAPES, SIZES, Scene

NUMBERS = {"shape": len(SHAPES) + 1, "colour": len(COLOURS) + 1, "size": len(SIZES) + 1}
"""Number of classes of each kind of label. Class 0 is the ground."""


class PatchLabels(NamedTuple):
    """Labels of the patches of one or more pictures, row by row."""

    shape: Int[np.ndarray, "*pictures patches"]
    colour: Int[np.ndarray, "*pictures patches"]
    size: Int[np.ndarray, "*pictures patches"]
    centre: Float[np.ndarray, "*pictures patches 2"]
    """From the centre of the patch to that of the thing on it, right and down, in patches. 0 on the ground."""


def patch_labels(scene: Scene, side: int) -> PatchLabels:
    """Labels `side * side` patches. A thing is on the patches whose centres lie in its bounding square."""
    middles = (np.arange(side) + 0.5) / side
    classes = np.zeros((3, side, side), np.int32)
    centre = np.zeros((side, side, 2), np.float32)
    for thing in scene.things:
        right, down = (thing.centre.x - middles)[None, :], (thing.centre.y - middles)[:, None]
        on = np.maximum(abs(right), abs(down)) <= SIZES[thing.size] / 2
        kinds = ((SHAPES, thing.shape), (tuple(COLOURS), thing.colour), (tuple(SIZES), thing.size))
        for labels, (names, name) in zip(classes, kinds, strict=True):
            labels[on] = 1 + names.index(name)
        centre[on] = side * np.stack(np.broadcast_arrays(right, down), axis=-1)[on]
    shape, colour, size = classes.reshape(3, -1)
    return PatchLabels(shape, colour, size, centre.reshape(-1, 2))
