"""Replies in the form of OpenAI's API."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from uno_jax.data.transforms import encode_png
from uno_jax.inference.generate import GeneratedImage, Request
from uno_jax.serving.jobs import Answered, Piece

DONE = b"data: [DONE]\n\n"
"""Last event of a streamed reply."""


def pictures_reply(
    pictures: Sequence[GeneratedImage], requests: Sequence[Request], created: int, *, as_url: bool
) -> dict[str, Any]:
    """Returns the reply to a request for pictures. Each has its seed, and its thought if it has one."""
    data = [
        {
            **({"url": _data_url(picture)} if as_url else {"b64_json": _base64(picture)}),
            "seed": request.settings.seed,
            **({"thought": picture.thought} if picture.thought else {}),
        }
        for picture, request in zip(pictures, requests, strict=True)
    ]
    size = "{}x{}".format(*pictures[0].image.size)
    return {"created": created, "data": data, "output_format": "png", "size": size}


def chat_reply(id_: str, model: str, created: int, results: Sequence[Answered | GeneratedImage]) -> dict[str, Any]:
    """Returns the whole reply to a chat request, with a choice for each result."""
    choices = [
        {"index": number, "message": _message(result), "finish_reason": _finish(result), "logprobs": None}
        for number, result in enumerate(results)
    ]
    head = {"id": id_, "object": "chat.completion", "created": created, "model": model}
    return {**head, "choices": choices, "usage": usage(results)}


def chat_chunk(
    id_: str, model: str, created: int, number: int, event: Piece | Answered | GeneratedImage | None
) -> bytes:
    """Returns an event of a streamed chat reply: the start of choice `number` for None, or what it has gained."""
    delta: dict[str, Any] = {}
    if event is None:
        delta = {"role": "assistant", "content": ""}
    elif isinstance(event, Piece):
        delta = _texts(event.content, event.thought)
    elif isinstance(event, GeneratedImage):
        delta = _message(event)
    finish = None if event is None or isinstance(event, Piece) else _finish(event)
    choice = {"index": number, "delta": delta, "finish_reason": finish, "logprobs": None}
    return server_event({**_chunk(id_, model, created), "choices": [choice]})


def usage_chunk(id_: str, model: str, created: int, results: Sequence[Answered | GeneratedImage]) -> bytes:
    """Returns the event of a streamed chat reply that has the numbers of tokens."""
    return server_event({**_chunk(id_, model, created), "choices": [], "usage": usage(results)})


def usage(results: Sequence[Answered | GeneratedImage]) -> dict[str, int]:
    """Returns the numbers of tokens that were read and written for answers; pictures count none."""
    answers = [result for result in results if isinstance(result, Answered)]
    read = max((answer.read for answer in answers), default=0)  # all choices have one context
    written = sum(answer.written for answer in answers)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def models_reply(model: str, created: int) -> dict[str, Any]:
    """Returns the list of models."""
    return {"object": "list", "data": [model_reply(model, created)]}


def model_reply(model: str, created: int) -> dict[str, Any]:
    """Returns the description of a model."""
    return {"id": model, "object": "model", "created": created, "owned_by": "uno_jax"}


def server_event(value: Mapping[str, Any]) -> bytes:
    """Returns a server-sent event with JSON data."""
    return f"data: {json.dumps(value)}\n\n".encode()


def _chunk(id_: str, model: str, created: int) -> dict[str, Any]:
    return {"id": id_, "object": "chat.completion.chunk", "created": created, "model": model}


def _message(result: Answered | GeneratedImage) -> dict[str, Any]:
    if isinstance(result, Answered):
        return {"role": "assistant", **_texts(result.content, result.thought, whole=True)}
    images = [{"type": "image_url", "image_url": {"url": _data_url(result)}}]
    return {"role": "assistant", **_texts("", result.thought, whole=True), "images": images}


def _texts(content: str, thought: str, *, whole: bool = False) -> dict[str, str]:
    """Returns the fields of a message or delta; a whole message always has a content."""
    texts = {"content": content} if content or whole else {}
    return texts | ({"reasoning_content": thought} if thought else {})


def _finish(result: Answered | GeneratedImage) -> str:
    return result.finish if isinstance(result, Answered) else "stop"


def _base64(picture: GeneratedImage) -> str:
    return base64.b64encode(encode_png(picture.image)).decode()


def _data_url(picture: GeneratedImage) -> str:
    return f"data:image/png;base64,{_base64(picture)}"
