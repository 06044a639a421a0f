"""The questions that `prepare_data recaption` asks of a picture."""

from __future__ import annotations

from collections.abc import Mapping

STYLES: Mapping[str, str] = {
    "plain": "",
    "short": "Describe the image in one short sentence.",
    "detailed": (
        "Describe the image in detail: its subjects with their colours, numbers, materials and places, the background, "
        "the light and the style."
    ),
    "objects": "Name everything that the image shows, with its number, its colour and its place.",
    "prompt": "Write the prompt from which an image generator would make this image.",
}
"""Name of a style -> question. `plain` asks nothing, for models that were trained to caption a picture without it."""
