"""Samples with the right number of tokens but without pixels, from the sizes of pictures alone."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

import numpy as np

from uno_jax.data.decoding import picture_size
from uno_jax.data.methods import Inputs, picture_name
from uno_jax.data.plans import Pixels
from uno_jax.data.record import Record
from uno_jax.data.transforms import ImageTransform


def blank(width: int, height: int) -> Pixels:
    """Returns a black picture that takes no memory."""
    return np.broadcast_to(np.uint8(0), (height, width, 3))


class BlankTransform(ImageTransform):
    """Gives blank pictures of the right size."""

    def resize(self, pixels: Pixels, stored: tuple[int, int] | None = None) -> Pixels:
        height, width = pixels.shape[:2]
        return blank(*self.size(*(stored or (width, height))))


def blank_transforms(inputs: Inputs) -> Inputs:
    """Returns the inputs with transforms that only compute sizes. Pictures are still decoded, at their own size."""
    transforms = (inputs.vae_transform, inputs.vit_transform, inputs.metaquery_transform)
    vae, vit, metaqueries = (BlankTransform(*astuple(transform)) for transform in transforms)
    return replace(inputs, vae_transform=vae, vit_transform=vit, metaquery_transform=metaqueries, reduced_jpeg=False)


@dataclass(frozen=True)
class SizesOnly(Inputs):
    """Inputs that read only the head of a picture file. What follows may be damaged."""

    def decode(self, encoded: bytes, record: Record, field: str) -> Pixels:
        return blank(*picture_size(encoded, picture_name(record, field), self.max_picture_pixels))


def sizes_only(inputs: Inputs) -> Inputs:
    """Returns inputs that give samples of the same lengths at a fraction of the cost."""
    blanks = blank_transforms(inputs)
    transforms = (blanks.vae_transform, blanks.vit_transform, blanks.metaquery_transform)
    return SizesOnly(inputs.tokenizer, *transforms, max_picture_pixels=inputs.max_picture_pixels)
