"""Writes PNG files atomically, with the settings of the picture as metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from uno_jax.data.decoding import decoded
from uno_jax.process.errors import UserError
from uno_jax.process.files import atomic_file
from uno_jax.process.json_reader import parse_json

_SETTINGS, _THOUGHT = "uno_jax", "thought"


def write_picture(file: Path, image: Image.Image, settings: Mapping[str, Any] | None, thought: str = "") -> None:
    """Writes a PNG with the settings as JSON in its text chunk `uno_jax`, and any thought in `thought`.

    Without settings (None), it has no text chunks.
    """
    if settings is None:
        write_png(file, image)
        return
    chunks = PngImagePlugin.PngInfo()
    text = json.dumps(settings, ensure_ascii=False)
    # File names need not be UTF-8. The surrogates that represent their bytes are escaped as in JSON.
    chunks.add_itxt(_SETTINGS, text.encode(errors="backslashreplace").decode())
    if thought:
        chunks.add_itxt(_THOUGHT, thought)
    write_png(file, image, chunks)


def write_png(file: Path, image: Image.Image, chunks: PngImagePlugin.PngInfo | None = None) -> None:
    """Writes a PNG atomically: under a temporary name, then renamed."""
    with atomic_file(file) as temporary:
        image.save(temporary, "PNG", pnginfo=chunks)


def read_settings(file: Path) -> dict[str, Any] | None:
    """Reads the settings of a picture; None if the file is missing, damaged, or has no settings."""
    try:
        with decoded(file.read_bytes()) as image:
            settings = parse_json(image.info[_SETTINGS])
    except (OSError, KeyError, UserError):
        return None
    return settings if isinstance(settings, dict) else None
