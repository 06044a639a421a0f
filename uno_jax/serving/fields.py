"""Reads the fields that all requests for pictures or answers share, with one sentence for what is wrong."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import difflib
import re
import secrets
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8

from uno_jax.config import from_config_dict, to_json
from uno_jax.data.decoding import decode_rgb
from uno_jax.inference.generate import Request
from uno_jax.inference.picture_settings import LARGEST_SEED, PictureSettings
from uno_jax.process.json_reader import JsonError, half_pair, parse_json
from uno_jax.serving.refusals import Refusal
from uno_jax.serving.server import MAX_COUNT, MAX_PICTURES, MAX_PIXELS, MAX_TIMESTEPS, Server

T = TypeVar("T")

SETTINGS = frozenset(field.name for field in dataclasses.fields(PictureSettings))
"""Names of the fields that are settings of a picture."""

WITHOUT_EFFECT = frozenset(
    ("user", "metadata", "store", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "moderation")
)
"""Fields of OpenAI's API about accounts and policies, which are accepted and change nothing here."""


def read_json_body(body: bytes) -> dict[str, Any]:
    """Returns the fields of a JSON body that are not null.

    Raises:
      Refusal: it is not a JSON object, or a text in it is not valid Unicode.
    """
    try:
        fields = parse_json(body)
    except JsonError as error:
        raise Refusal(400, f"the body is {error}; send one JSON object") from None
    if not isinstance(fields, dict):
        raise Refusal(400, f"the body is a JSON {type(fields).__name__}; send one JSON object")
    broken = half_pair(fields)
    if broken is not None:
        raise Refusal(400, f"{broken or 'a name'} has half of a surrogate pair, which is not valid Unicode")
    return {name: value for name, value in fields.items() if value is not None}


def typed_texts(fields: Mapping[str, str], kind: type[Any]) -> dict[str, Any]:
    """Converts the texts of a form to values of the types that `kind` or `PictureSettings` declares for them."""
    kinds = typing.get_type_hints(PictureSettings) | typing.get_type_hints(kind)
    return {name: _typed(text, kinds.get(name, str)) for name, text in fields.items()}


def _typed(text: str, kind: Any) -> Any:
    if kind is str or typing.get_origin(kind) is typing.Literal:
        return text
    try:
        return parse_json(text)
    except JsonError:
        return text  # the error of the field says what was expected


def read_fields(
    fields: Mapping[str, Any], kind: type[T], *, also: Iterable[str], absent: Mapping[str, Sequence[Any]]
) -> T:
    """Reads the fields that `kind` declares.

    Args:
      fields: all fields of a request.
      kind: a dataclass.
      also: names of further fields, which are left to the caller.
      absent: fields of OpenAI's API that are not supported, with the values that ask for nothing.

    Raises:
      Refusal: a field is unknown, or asks for something that is not supported.
      ConfigError: a field has the wrong type or value, or is missing.
    """
    own = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    known = {*own, *also, *absent, *WITHOUT_EFFECT}
    for name, value in fields.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(own | set(also)))}"
            raise Refusal(400, f"unknown field {name!r}; {hint}")
        if name in absent and not any(value == empty and type(value) is type(empty) for empty in absent[name]):
            raise Refusal(400, f"{name} is not supported by this server; leave it out")
    return from_config_dict({name: fields[name] for name in own if name in fields}, kind, "request")


def read_settings(fields: Mapping[str, Any], defaults: PictureSettings) -> PictureSettings:
    """Returns the settings of a picture: those among the fields of a request, and defaults for the others.

    Without a seed, one is drawn. The size `auto` is that of the defaults.

    Raises:
      Refusal: too many timesteps.
      ConfigError: a setting has the wrong type or value.
    """
    own = {name: value for name, value in fields.items() if name in SETTINGS}
    if own.get("size") == "auto":
        del own["size"]
    drawn = {"seed": secrets.randbelow(LARGEST_SEED - MAX_COUNT)}
    settings = from_config_dict({**to_json(defaults), **drawn, **own}, PictureSettings, "request")
    if settings.timesteps > MAX_TIMESTEPS:
        raise Refusal(400, f"timesteps is {settings.timesteps}: expected at most {MAX_TIMESTEPS}")
    return settings


def with_seeds(context: tuple[Any, ...], settings: PictureSettings, count: int, server: Server) -> list[Request]:
    """Returns checked requests for `count` pictures with consecutive seeds.

    Raises:
      Refusal: a wrong count.
      UserError: the model cannot read the context, or does not support the size, or a seed is out of range.
    """
    check_count(count, server)
    seeds = range(settings.seed, settings.seed + count)
    requests = [Request(context, dataclasses.replace(settings, seed=seed)) for seed in seeds]
    server.generator.check_texts(requests[0])
    server.generator.size_of(requests[0])
    return requests


def check_count(count: int, server: Server) -> None:
    """Raises Refusal if a request asks for less than one result, or for more than can ever wait."""
    most = min(MAX_COUNT, server.limits.queue)
    if not 1 <= count <= most:
        raise Refusal(400, f"n is {count}: expected 1 to {most}")


def check_model(asked: str, server: Server) -> None:
    """Raises Refusal if a request asks for another model. An empty name asks for any."""
    if asked not in ("", server.name):
        raise Refusal(404, f"there is no model {asked!r} here; use {server.name!r}", "model_not_found")


def check_pictures(count: int) -> None:
    """Raises Refusal if a context has too many pictures."""
    if count > MAX_PICTURES:
        raise Refusal(400, f"{count} pictures are given: expected at most {MAX_PICTURES}")


def decode_picture(encoded: bytes, what: str) -> UInt8[np.ndarray, "height width 3"]:
    """Decodes a picture of a request; `what` names it. Raises PictureError, a UserError."""
    return decode_rgb(encoded, what, MAX_PIXELS)


def decode_data_url(url: str, what: str) -> UInt8[np.ndarray, "height width 3"]:
    """Decodes the picture in a data URL.

    Raises:
      Refusal: it is another URL, which the server does not fetch, or is not base64.
      PictureError: it is not a picture.
    """
    match = re.match(r"data:[\w.+/-]*;base64,", url)
    if match is None:
        raise Refusal(400, f"{what} is not a data URL; send the picture itself, as data:image/png;base64,..")
    try:
        return decode_picture(base64.b64decode(url[match.end() :], validate=True), what)
    except binascii.Error as error:
        raise Refusal(400, f"{what} is not valid base64 ({error}); encode the picture again") from None
