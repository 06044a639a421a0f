"""What a picture says of how it was made: all that it depends on, so that the same picture is not made twice."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from uno_jax.config import to_json
from uno_jax.inference.contexts import ContextPart, read_picture
from uno_jax.inference.generate import Generator, Request


def picture_metadata(request: Request, generator: Generator) -> dict[str, Any]:
    """Model, context, settings, and what they come to for this model; as JSON gives it back.

    A picture of the context is told by a hash: of the bytes of its file, by name, or of its pixels, by size.

    Raises:
      ValueError: a picture of the context cannot be read, or the model cannot generate the size.
      OSError: its file cannot be read any more.
    """
    model, settings = generator.reader.model, request.settings
    height, width = generator.size_of(request)
    said = {
        "checkpoint": model.origin,
        "dtype": model.config.compute_dtype,
        "context": [_described(part) for part in request.context],
        **to_json(settings),
        "size": f"{width}x{height}",
        "time_shift": settings.flow(model.time_shift).time_shift,
    }
    if settings.think:
        said["drawing_prompt"] = generator.thinking.drawing_prompt
        said["thoughts"] = to_json(generator.thinking.text)
    return said


def _described(part: ContextPart) -> Any:
    if isinstance(part, str):
        return part
    if isinstance(part, Path):
        return {"image": part.name, "sha256": hashlib.sha256(part.read_bytes()).hexdigest()}
    pixels = read_picture(part)
    height, width, _ = pixels.shape
    return {"pixels": f"{width}x{height}", "sha256": hashlib.sha256(pixels.tobytes()).hexdigest()}
