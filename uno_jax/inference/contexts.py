"""Turns user input, texts and pictures in any order, into plans of contexts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from uno_jax.data.decoding import PictureError, decode_rgb, read_file, rgb_pixels
from uno_jax.data.plans import CleanLatents, Plan, Text, VitImage
from uno_jax.interop.load import LoadedModel
from uno_jax.process.errors import UserError

Picture = Path | Image.Image | UInt8[np.ndarray, "_height _width 3"]
"""Path of a picture file, an image, or pixels."""
ContextPart = str | Picture
"""A text or a picture. A str is always a text; a file is a `Path`."""

_MOST_CHARACTERS = 256  # of a token; the longest of the published vocabulary has 128


def read_picture(picture: Picture | str | np.ndarray, what: str = "picture") -> UInt8[np.ndarray, "height width 3"]:
    """Reads the RGB pixels of a picture, upright, with transparency on white.

    Args:
      picture: a file (a str is a path here), an image, or an array.
      what: name of the picture in error messages.

    Raises:
      UserError: the picture cannot be read or is invalid. The message names `what` and the file.
    """
    if isinstance(picture, (str, Path)):
        try:
            encoded = read_file(Path(picture))
        except PictureError as error:
            raise error.of(f"{what}: {picture}") from error
        return decode_rgb(encoded, f"{what}: {picture}")
    if isinstance(picture, Image.Image):
        try:
            return rgb_pixels(picture)
        except PictureError as error:
            raise error.of(what) from error
    pixels: np.ndarray = np.asarray(picture)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3 or not pixels.size:
        raise UserError(
            f"{what} is a {pixels.dtype} array of shape {pixels.shape}; expected uint8 [height, width, 3], a PIL "
            "image, or a pathlib.Path"
        )
    return pixels


def encode_texts(parts: Sequence[ContextPart], model: LoadedModel, *, written: int = 0) -> list[tuple[int, ...]]:
    """Returns the token ids of the texts of a context, after a check that the model can read all of it.

    Args:
      parts: texts and pictures. Pictures are counted and not read.
      model: model with tokenizer.
      written: maximum number of tokens that will be written after the context.

    Raises:
      UserError: a text is not valid Unicode, or the context is longer than the model's context length.
    """
    limit = model.config.decoder.context_length
    # A text of more characters has too many tokens. The tokenizer would need much memory to count them.
    characters = sum(len(part) for part in parts if isinstance(part, str))
    if characters > limit * _MOST_CHARACTERS:
        raise UserError(f"the texts have {characters:,} characters, {_too_long(limit)}")
    texts = [tuple(model.tokenizer.encode(part)) for part in parts if isinstance(part, str)]
    # Delimiters surround a text. A picture takes one position of its own, and one as latents.
    positions = sum(len(ids) + 2 for ids in texts) + 2 * (len(parts) - len(texts))
    if positions + written > limit:
        after = f", and up to {written:,} are to be written after it" if written else ""
        raise UserError(f"the context has {positions:,} positions{after}, {_too_long(limit)}")
    return texts


def _too_long(limit: int) -> str:
    return f"more than the context length of {limit:,} of this model: shorten the texts"


def context_plan(parts: Sequence[ContextPart], model: LoadedModel, *, latents: bool, written: int = 0) -> Plan:
    """Returns the items of a context in order, as in BAGEL's public implementation.

    A picture is resized by the autoencoder's transform. Its ViT patches are taken from the result.

    Args:
      parts: texts and pictures.
      model: model with tokenizer and transforms.
      latents: reads pictures as latents and ViT patches, to generate a picture. Otherwise reads ViT patches only, to
        generate text.
      written: maximum number of tokens that will be written after the context.

    Raises:
      UserError: a picture cannot be read, or as for `encode_texts`.
    """
    texts = iter(encode_texts(parts, model, written=written))
    plan: list[Any] = []
    pictures = 0
    for part in parts:
        if isinstance(part, str):
            plan.append(Text(ids=next(texts)))
            continue
        pictures += 1
        pixels = model.vae_transform.resize(read_picture(part, f"picture {pictures} of the context"))
        if latents:
            plan.append(CleanLatents(pixels=pixels))
        plan.append(VitImage(pixels=model.vit_transform.resize(pixels)))
    return tuple(plan)


def last_picture_size(plan: Plan) -> tuple[int, int] | None:
    """Returns height and width in pixels of the last picture read as latents, or None without such a picture."""
    sizes = [item.pixels.shape[:2] for item in plan if isinstance(item, CleanLatents)]
    return sizes[-1] if sizes else None
