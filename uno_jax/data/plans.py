"""Plans: the items of a sample, in the order of its logical sequence.

A plan is a tuple of items. It holds token ids and resized pixels, and nothing that depends on the sample's place in a
batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, UInt8

Pixels = UInt8[np.ndarray, "_height _width 3"]
"""A picture at the size of the encoder's input. Sizes differ from picture to picture."""

Moments = Float32[np.ndarray, "_rows _columns _moments"]
"""Precomputed moments of a picture's latent tokens: patchified mean, then patchified log-variance."""

Features = Float[np.ndarray, "_rows _columns _features"]
"""Precomputed features of a picture's patches, by the vision encoder in its compute dtype."""

PatchUse = Literal["vit", "metaqueries"]
"""What the patches of a picture are for: a context image, or the targets of metaqueries. Each has a transform."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """Base of all items."""

    droppable: bool = False
    """Whether condition dropout may remove the item."""


@dataclass(frozen=True, kw_only=True)
class Text(Item):
    """Context text. The layout adds `<|im_start|>` and `<|im_end|>` around the ids."""

    ids: tuple[int, ...]
    answer: bool = False
    """Whether the text is trained: cross-entropy on the ids and the closing token."""


@dataclass(frozen=True, kw_only=True)
class VitImage(Item):
    """A context image as ViT patches."""

    pixels: Pixels | Features


@dataclass(frozen=True, kw_only=True)
class CleanLatents(Item):
    """A context image as latents: clean, or lightly noised at t = `time_scale` * the sampled t."""

    pixels: Pixels | Moments
    time_scale: float = 0.0


@dataclass(frozen=True, kw_only=True)
class NoisedTarget(Item):
    """The image to generate, trained by flow matching, and its supervision."""

    pixels: Pixels | Moments
    caption: tuple[int, ...] | None = None
    """Ids of the caption that the understanding expert learns to write from the noised latents; None = no caption."""
    query_pixels: Pixels | Features | None = None
    """The clean target at metaquery resolution; None = no metaqueries."""
    flow: bool = True
    """Whether flow matching is trained on it. If not, only its caption and metaqueries read it, and it has the time,
    the noise and the latents of the noised target that follows."""


@dataclass(frozen=True, kw_only=True)
class DroppedImage(Item):
    """A context image removed by dropout: it has no tokens, but still advances the position."""


Plan = tuple[Item, ...]
