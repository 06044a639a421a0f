"""Requests for answers and pictures in a conversation: /v1/chat/completions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from uno_jax.inference.contexts import ContextPart
from uno_jax.inference.generate import Request
from uno_jax.inference.picture_settings import check_seed
from uno_jax.serving.fields import (
    SETTINGS,
    check_count,
    check_model,
    check_pictures,
    decode_data_url,
    read_fields,
    read_json_body,
    read_settings,
    with_seeds,
)
from uno_jax.serving.jobs import Question
from uno_jax.serving.refusals import Refusal
from uno_jax.serving.server import MAX_STOPS, Server

_ABSENT: Mapping[str, Sequence[Any]] = {
    "audio": (),
    "frequency_penalty": (0, 0.0),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "presence_penalty": (0, 0.0),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
}
"""Fields of OpenAI's API that are not supported -> values that ask for nothing."""

_LISTS = ("messages", "modalities", "stop", "stream_options")
_OF_ANSWERS = ("max_tokens", "max_completion_tokens", "temperature", "top_p", "stop")
_OF_PICTURES = SETTINGS - {"seed", "think"}
_ROLES = ("system", "developer", "user", "assistant")


@dataclass(frozen=True)
class ChatFields:
    """Fields of a chat request that have one type, besides the settings of a picture."""

    model: str = ""
    n: int = 1
    stream: bool = False
    seed: int | None = None
    think: bool = False
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None


@dataclass(frozen=True)
class ChatOrder:
    """A checked chat request."""

    works: list[Request] | list[Question]
    """One for each choice of the reply: all pictures, or all answers."""
    stream: bool
    usage: bool
    """Whether a streamed reply ends with the numbers of tokens."""


def read_chat(body: bytes, server: Server) -> ChatOrder:
    """Reads a chat request.

    Raises:
      Refusal, UserError: the request is wrong.
    """
    fields = read_json_body(body)
    own = read_fields(fields, ChatFields, also={*_LISTS, *_OF_PICTURES}, absent=_ABSENT)
    check_model(own.model, server)
    context = read_messages(fields.get("messages"))
    works: list[Request] | list[Question]
    if _wants_picture(fields.get("modalities", ["text"])):
        _check_without(fields, _OF_ANSWERS, 'of answers; leave it out, or take "image" out of modalities')
        if not isinstance(context[-1], str):
            raise Refusal(400, "the messages end with a picture; end them with a text that says what to draw")
        works = with_seeds(context, read_settings(fields, server.settings), own.n, server)
    else:
        _check_without(fields, _OF_PICTURES, 'of pictures; leave it out, or add modalities ["image"]')
        works = _questions(context, own, fields, server)
    return ChatOrder(works, own.stream, _wants_usage(fields.get("stream_options", {}), stream=own.stream))


def read_messages(messages: Any) -> tuple[ContextPart, ...]:
    """Returns the texts and pictures of all messages in order, without empty texts.

    Raises:
      Refusal: the messages are not as in OpenAI's API, contain no text or picture, or too many pictures.
      PictureError: a picture cannot be decoded.
    """
    if not isinstance(messages, list):
        raise Refusal(400, 'messages is missing or no list; expected [{"role": "user", "content": ..}]')
    parts: list[ContextPart] = []
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise Refusal(400, f"{where} has no known role: expected one of {', '.join(_ROLES)}")
        content = message.get("content") or []
        if not isinstance(content, (str, list)):
            raise Refusal(400, f"{where}.content is neither a text nor a list of parts")
        listed = [{"type": "text", "text": content}] if isinstance(content, str) else content
        parts += [_part(part, f"{where}.content[{place}]") for place, part in enumerate(listed)]
        images = message.get("images") or []
        if not isinstance(images, list):
            raise Refusal(400, f"{where}.images is no list of parts")
        parts += [_part(part, f"{where}.images[{place}]") for place, part in enumerate(images)]
        check_pictures(sum(not isinstance(part, str) for part in parts))
    parts = [part for part in parts if not isinstance(part, str) or part.strip()]
    if not parts:
        raise Refusal(400, "the messages have neither a text nor a picture; ask a question, or send a picture")
    return tuple(parts)


def _part(part: Any, where: str) -> ContextPart:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "image_url", "image_url": {"url": str(url)} | str(url)}:
            return decode_data_url(url, where)
    raise Refusal(400, f'{where} is no part of type "text" or "image_url", which are those that this server reads')


def _questions(
    context: tuple[ContextPart, ...], own: ChatFields, fields: Mapping[str, Any], server: Server
) -> list[Question]:
    check_count(own.n, server)
    tokens = own.max_tokens if own.max_completion_tokens is None else own.max_completion_tokens
    if tokens is not None and tokens < 1:
        raise Refusal(400, f"the maximum number of tokens is {tokens}: expected at least 1")
    changes: dict[str, Any] = {
        "max_length": None if tokens is None else tokens + 1,  # which includes the start token
        "temperature": own.temperature,
        "top_p": own.top_p,
    }
    text = dataclasses.replace(server.text, **{name: value for name, value in changes.items() if value is not None})
    seed, stop = own.seed or 0, _stop(fields.get("stop", []))
    check_seed(seed)
    check_seed(seed + own.n - 1)
    plan = server.generator.answering_plan(context, think=own.think, text=text)
    return [Question(plan, text, seed + number, stop) for number in range(own.n)]


def _stop(given: Any) -> tuple[str, ...]:
    stop = [given] if isinstance(given, str) else given
    if not isinstance(stop, list) or len(stop) > MAX_STOPS or not all(isinstance(text, str) and text for text in stop):
        raise Refusal(400, f"stop is neither a text nor a list of at most {MAX_STOPS} texts that are not empty")
    return tuple(stop)


def _wants_picture(modalities: Any) -> bool:
    if not isinstance(modalities, list) or not modalities or not all(name in ("text", "image") for name in modalities):
        raise Refusal(400, 'modalities is not one of ["text"], ["image"] and ["text", "image"]')
    return "image" in modalities


def _wants_usage(options: Any, *, stream: bool) -> bool:
    match options:
        case {"include_usage": bool(usage)} if stream:
            return usage
        case {} if not options:
            return False
    raise Refusal(400, 'stream_options is not {"include_usage": true}, or the reply is not streamed')


def _check_without(fields: Mapping[str, Any], names: Sequence[str] | frozenset[str], what: str) -> None:
    found = sorted(set(names) & set(fields))
    if found:
        raise Refusal(400, f"{found[0]} is a setting {what}")
