"""PNG files: those that remember how they were made, and none that is half written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from uno_jax.process.json_reader import parse_json

_SETTINGS, _THOUGHT = "uno_jax", "thought"


def write_picture(file: Path, image: Image.Image, settings: Mapping[str, Any], thought: str = "") -> None:
    """Writes a PNG whose text chunk `uno_jax` holds the settings as JSON, and `thought` the thought, if any."""
    chunks = PngImagePlugin.PngInfo()
    said = json.dumps(settings, ensure_ascii=False)
    # Names of files need not be UTF-8; what stands for their bytes in a str is escaped, as JSON knows it.
    chunks.add_itxt(_SETTINGS, said.encode(errors="backslashreplace").decode())
    if thought:
        chunks.add_itxt(_THOUGHT, thought)
    write_png(file, image, chunks)


def write_png(file: Path, image: Image.Image, chunks: PngImagePlugin.PngInfo | None = None) -> None:
    """Writes a PNG that appears whole, or not at all."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        image.save(temporary, "PNG", pnginfo=chunks)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def read_settings(file: Path) -> dict[str, Any] | None:
    """What a picture was made with; None where there is no such file, or none of ours, or a damaged one."""
    try:
        with Image.open(file) as image:
            image.load()
            settings: dict[str, Any] = parse_json(image.info[_SETTINGS])
            return settings
    except (OSError, KeyError, ValueError, SyntaxError):
        return None
