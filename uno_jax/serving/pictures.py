"""Requests for pictures: /v1/images/generations and /v1/images/edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from uno_jax.inference.contexts import ContextPart
from uno_jax.inference.generate import Request
from uno_jax.serving.fields import (
    SETTINGS,
    check_model,
    check_pictures,
    decode_picture,
    read_fields,
    read_json_body,
    read_settings,
    typed_texts,
    with_seeds,
)
from uno_jax.serving.refusals import Refusal
from uno_jax.serving.server import Server

_ABSENT: Mapping[str, Sequence[Any]] = {
    "background": ("auto",),
    "input_fidelity": (),
    "mask": (),
    "output_compression": (),
    "partial_images": (0, "0"),
    "quality": ("auto", "standard"),
    "stream": (False, "false"),
    "style": (),
}
"""Fields of OpenAI's API that are not supported -> values that ask for nothing."""


@dataclass(frozen=True)
class PictureFields:
    """Fields of a request for pictures, besides the settings of a picture."""

    prompt: str
    model: str = ""
    n: int = 1
    response_format: Literal["b64_json", "url"] = "b64_json"
    """How the picture is given: as base64, or as a data URL."""
    output_format: Literal["png"] = "png"

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise ValueError("prompt is empty; describe the picture, or the change")


@dataclass(frozen=True)
class PictureOrder:
    """A checked request for pictures."""

    requests: list[Request]
    """One for each picture."""
    as_url: bool


def read_generation(body: bytes, server: Server) -> PictureOrder:
    """Reads a request for pictures from a text.

    Raises:
      Refusal, UserError: the request is wrong.
    """
    return _order(read_json_body(body), (), server)


def read_edit(texts: Mapping[str, str], files: Sequence[bytes], server: Server) -> PictureOrder:
    """Reads a request for edits of one or several pictures, from the texts and files of a form.

    Raises:
      Refusal, UserError: the request is wrong.
    """
    if not files:
        raise Refusal(400, "there is no image; send the picture to edit as a file in the field image")
    check_pictures(len(files))
    pictures = [decode_picture(encoded, f"image {number}") for number, encoded in enumerate(files, start=1)]
    return _order(typed_texts(texts, PictureFields), tuple(pictures), server)


def _order(fields: Mapping[str, Any], pictures: tuple[ContextPart, ...], server: Server) -> PictureOrder:
    own = read_fields(fields, PictureFields, also=SETTINGS, absent=_ABSENT)
    check_model(own.model, server)
    settings = read_settings(fields, server.settings)
    requests = with_seeds((*pictures, own.prompt), settings, own.n, server)
    return PictureOrder(requests, own.response_format == "url")
