"""What a person gives as a context, texts and pictures in any order, made into the plans that are laid out and read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from uno_jax.data.plans import CleanLatents, Plan, Text, VitImage
from uno_jax.data.transforms import decode_rgb, rgb_pixels
from uno_jax.interop.load import LoadedModel
from uno_jax.process.errors import UserError

Picture = Path | Image.Image | UInt8[np.ndarray, "_height _width 3"]
"""A file, or pixels."""
ContextPart = str | Picture
"""A text (never the name of a file: that is a `Path`), or a picture."""


def read_picture(picture: Picture | str | np.ndarray, what: str = "picture") -> UInt8[np.ndarray, "height width 3"]:
    """Pixels, upright, transparency on white; here a text is the name of a file.

    Raises:
      UserError: it cannot be read, or is no picture; the message names `what` and the file.
    """
    if isinstance(picture, (str, Path)):
        try:
            encoded = Path(picture).read_bytes()
        except OSError as error:
            raise UserError(f"{what}: {picture} cannot be read ({error.strerror or error})") from error
        return decode_rgb(encoded, f"{what}: {picture}")
    if isinstance(picture, Image.Image):
        try:
            return rgb_pixels(picture)
        except (OSError, ValueError) as error:
            raise UserError(f"{what}: an image that cannot be read ({error})") from error
    pixels: np.ndarray = np.asarray(picture)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3 or not pixels.size:
        raise UserError(
            f"{what}: an array of {pixels.dtype} {pixels.shape}; expected uint8 [height, width, 3], a PIL image, or a "
            "pathlib.Path"
        )
    return pixels


def context_plan(parts: Sequence[ContextPart], model: LoadedModel, *, latents: bool) -> Plan:
    """The items of a context, in its order (conventions 3 and 21).

    A picture is resized by the autoencoder's transform, and its ViT patches are taken from that.

    Args:
      parts: texts and pictures.
      model: its tokenizer and transforms.
      latents: pictures are read as latents and as ViT patches, to draw from them; else as ViT patches alone, to write
        of them.

    Raises:
      UserError: a picture that cannot be read, or a text that is no Unicode.
    """
    plan: list[Any] = []
    pictures = 0
    for part in parts:
        if isinstance(part, str):
            plan.append(Text(ids=tuple(model.tokenizer.encode(part))))
            continue
        pictures += 1
        pixels = model.vae_transform.resize(read_picture(part, f"picture {pictures} of the context"))
        if latents:
            plan.append(CleanLatents(pixels=pixels))
        plan.append(VitImage(pixels=model.vit_transform.resize(pixels)))
    return tuple(plan)


def last_picture_size(plan: Plan) -> tuple[int, int] | None:
    """Height and width of the last picture that is read as latents; None: there is none."""
    sizes = [item.pixels.shape[:2] for item in plan if isinstance(item, CleanLatents)]
    return sizes[-1] if sizes else None
