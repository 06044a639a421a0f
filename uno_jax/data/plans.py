"""Plans: what a sample is made of, item by item.

A plan is a tuple of items in the order of the logical sequence. It holds token ids and resized pixels, nothing that
depends on where the sample will lie in a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

Pixels = UInt8[np.ndarray, "_height _width 3"]
"""A picture at the size that the encoder sees; each has a size of its own."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """What all items share."""

    droppable: bool = False
    """A condition: condition dropout may leave it out."""


@dataclass(frozen=True, kw_only=True)
class Text(Item):
    """Context text; `<|im_start|>` and `<|im_end|>` are put around the ids."""

    ids: tuple[int, ...]
    answer: bool = False
    """Cross-entropy on every token but the first: the ids and the closing token."""


@dataclass(frozen=True, kw_only=True)
class VitImage(Item):
    """A context image as ViT patches."""

    pixels: Pixels


@dataclass(frozen=True, kw_only=True)
class CleanLatents(Item):
    """A context image as latents, clean or, with `time_scale` > 0, lightly noised: t = time_scale * the drawn t."""

    pixels: Pixels
    time_scale: float = 0.0


@dataclass(frozen=True, kw_only=True)
class NoisedTarget(Item):
    """The image to generate: flow matching, and what supervises it."""

    pixels: Pixels
    caption: tuple[int, ...] | None = None
    """The caption that the understanding expert must write from the noised latents; None: no caption."""
    query_pixels: Pixels | None = None
    """The clean target at metaquery resolution; None: no metaqueries."""


@dataclass(frozen=True, kw_only=True)
class DroppedImage(Item):
    """A context image that dropout left out: no tokens, but its step in position."""


Plan = tuple[Item, ...]
