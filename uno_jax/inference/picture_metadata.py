"""Builds the metadata of a picture: everything it depends on, so that an existing picture is recognised."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from uno_jax.config import to_json
from uno_jax.inference.contexts import ContextPart, read_picture
from uno_jax.inference.generate import Generator, Request


def picture_metadata(request: Request, generator: Generator) -> dict[str, Any]:
    """Returns model, context and settings in JSON types, with size and time shift resolved for the model.

    The model is identified by its name, which does not tell where it is stored (`LoadedModel.name`). A picture file of
    the context is described by its name and the hash of its bytes, an image by its size and the hash of its pixels.

    Raises:
      ValueError: a picture of the context cannot be read, or the model does not support the size.
      OSError: a picture file cannot be read.
    """
    model, settings = generator.reader.model, request.settings
    height, width = generator.size_of(request)
    metadata = {
        "checkpoint": model.name,
        "dtype": model.precision,
        "context": [_described(part) for part in request.context],
        **to_json(settings),
        "size": f"{width}x{height}",
        "time_shift": settings.flow(model.time_shift).time_shift,
    }
    if settings.think:
        metadata["drawing_prompt"] = generator.thinking.drawing_prompt
        metadata["thoughts"] = to_json(generator.thinking.text)
    return metadata


def _described(part: ContextPart) -> Any:
    if isinstance(part, str):
        return part
    if isinstance(part, Path):
        return {"image": part.name, "sha256": hashlib.sha256(part.read_bytes()).hexdigest()}
    pixels = read_picture(part)
    height, width, _ = pixels.shape
    return {"pixels": f"{width}x{height}", "sha256": hashlib.sha256(pixels.tobytes()).hexdigest()}
