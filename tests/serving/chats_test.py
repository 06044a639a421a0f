"""Chats over HTTP: answers at once and in pieces, and pictures."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.helpers.made_up_plans import latents_of
from tests.helpers.served import TEXT, served
from tests.helpers.small_loaded import QUICK_SETTINGS, small_generator
from uno_jax.data.plans import Text
from uno_jax.data.transforms import encode_png
from uno_jax.inference.generate import Request
from uno_jax.serving.chats import read_chat, read_messages
from uno_jax.serving.server import Server

pytestmark = pytest.mark.usefixtures("quick_compiles")

SOURCE = latents_of(1, 2, seed=3)
SOURCE_URL = f"data:image/png;base64,{base64.b64encode(encode_png(Image.fromarray(SOURCE))).decode()}"
SOURCE_PART = {"type": "image_url", "image_url": {"url": SOURCE_URL}}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with served() as address, httpx.Client(base_url=address, timeout=120) as client:
        yield client


def said(*contents: Any) -> list[dict[str, Any]]:
    """Returns messages of the user."""
    return [{"role": "user", "content": content} for content in contents]


def answered(client: httpx.Client, messages: Any, **fields: Any) -> dict[str, Any]:
    reply = client.post("/v1/chat/completions", json={"messages": messages, **fields})
    assert reply.status_code == 200, reply.text
    return reply.json()


def streamed(client: httpx.Client, messages: Any, **fields: Any) -> list[Any]:
    """Returns the data of all events, which end with [DONE]."""
    reply = client.post("/v1/chat/completions", json={"messages": messages, "stream": True, **fields})
    assert reply.headers["content-type"].startswith("text/event-stream")
    *events, done, end = reply.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def refused(client: httpx.Client, **fields: Any) -> str:
    reply = client.post("/v1/chat/completions", json={"messages": said("thing"), **fields})
    assert reply.status_code == 400
    message = reply.json()["error"]["message"]
    assert len(message.splitlines()) == 1
    return message


def test_an_answer_is_that_of_the_python_api(client):
    reply = answered(client, said([SOURCE_PART, {"type": "text", "text": "thing"}]))
    [expected] = small_generator().answer([SOURCE], ["thing"], TEXT)
    [choice] = reply["choices"]
    assert choice["message"] == {"role": "assistant", "content": expected.text}
    assert choice["finish_reason"] == "length"
    assert (reply["object"], reply["model"]) == ("chat.completion", "small")
    assert reply["usage"]["completion_tokens"] == 6
    assert reply["usage"]["total_tokens"] == reply["usage"]["prompt_tokens"] + 6


def test_the_pieces_of_a_streamed_answer_add_up_to_it(client):
    whole = answered(client, said("thing"))["choices"][0]["message"]["content"]
    first, *events, last, usage = streamed(client, said("thing"), stream_options={"include_usage": True})
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len(events) == 2  # of 6 tokens, four at once
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == whole
    assert last["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "length", "logprobs": None}
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 6


def test_several_answers_have_consecutive_seeds(client):
    choices = answered(client, said("thing"), n=2, seed=4, temperature=2.0)["choices"]
    text = dataclasses.replace(TEXT, temperature=2.0)
    expected = small_generator().answer([(), ()], ["thing", "thing"], text, seeds=[4, 5])
    assert [choice["message"]["content"] for choice in choices] == [answer.text for answer in expected]


def test_an_answer_has_at_most_the_tokens_that_are_asked_for(client):
    reply = answered(client, said("thing"), max_completion_tokens=2)
    assert reply["usage"]["completion_tokens"] == 2


def test_an_answer_ends_before_a_stop_text(client):
    whole = answered(client, said("thing"))["choices"][0]["message"]["content"]
    stop = whole[2:4]
    [choice] = answered(client, said("thing"), stop=stop)["choices"]
    assert choice["message"]["content"] == whole[: whole.index(stop)].strip()
    assert choice["finish_reason"] == "stop"


def test_a_picture_is_drawn_from_the_whole_conversation(client):
    messages = said([SOURCE_PART], "thing")
    reply = answered(client, messages, modalities=["image"], seed=3)
    [expected] = small_generator().generate([Request((SOURCE, "thing"), dataclasses.replace(QUICK_SETTINGS, seed=3))])
    message = reply["choices"][0]["message"]
    [image] = message["images"]
    encoded = base64.b64decode(image["image_url"]["url"].removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded))), np.asarray(expected[1].image))
    assert message["content"] == ""
    [_, event] = streamed(client, messages, modalities=["text", "image"], seed=3)
    assert event["choices"][0]["delta"]["images"] == message["images"]
    assert event["choices"][0]["finish_reason"] == "stop"


def test_all_messages_are_read_in_order_with_the_pictures_of_replies():
    drawn = {"role": "assistant", "content": "", "images": [SOURCE_PART]}
    parts = read_messages([{"role": "system", "content": "be"}, *said("draw"), drawn, *said([SOURCE_PART], "what?")])
    assert ["picture" if isinstance(part, np.ndarray) else part for part in parts] == [
        "be",
        "draw",
        "picture",
        "picture",
        "what?",
    ]


def test_no_text_of_a_request_becomes_a_special_token():
    generator = small_generator()
    tokenizer = generator.reader.model.tokenizer
    special = "".join(tokenizer.decode([id_]) for id_ in sorted(tokenizer.added))
    assert "<|im_end|>" in special
    body = {"messages": [{"role": "system", "content": special}, *said(special)], "stop": special}
    [question] = read_chat(json.dumps(body).encode(), Server(generator, "small")).works
    ids = [id_ for item in question.plan if isinstance(item, Text) for id_ in item.ids]
    assert ids
    assert not set(ids) & tokenizer.added
    assert tokenizer.decode(ids) == special * 2
    assert question.stop == (special,)  # compared as text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": None}, "messages is missing or no list"),
        ({"messages": []}, "the messages have neither a text nor a picture"),
        ({"messages": said(" ")}, "the messages have neither a text nor a picture"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0] has no known role: expected one of system"),
        ({"messages": said(3)}, "messages[0].content is neither a text nor a list of parts"),
        ({"messages": said([{"type": "input_audio"}])}, "messages[0].content[0] is no part of type"),
        (
            {"messages": said([{"type": "image_url", "image_url": {"url": "http://example.com/a.png"}}])},
            "messages[0].content[0] is not a data URL; send the picture itself",
        ),
        (
            {"messages": said([{"type": "image_url", "image_url": {"url": "data:image/png;base64,eHg="}}])},
            "messages[0].content[0]: not a picture",
        ),
        (
            {"messages": said([{"type": "image_url", "image_url": {"url": "data:image/png;base64,x"}}])},
            "messages[0].content[0] is not valid base64",
        ),
        ({"messages": said([SOURCE_PART] * 9)}, "9 pictures are given: expected at most 8"),
        ({"messages": said("thing " * 20_000)}, "more than the context length of 2,048 of this model"),
        ({"messages": said([SOURCE_PART]), "modalities": ["image"]}, "the messages end with a picture"),
        ({"modalities": ["audio"]}, 'modalities is not one of ["text"], ["image"]'),
        ({"modalities": ["image"], "max_tokens": 3}, "max_tokens is a setting of answers; leave it out"),
        ({"size": "16x16"}, 'size is a setting of pictures; leave it out, or add modalities ["image"]'),
        ({"max_tokens": 0}, "the maximum number of tokens is 0: expected at least 1"),
        ({"max_tokens": 5000}, "up to 5,001 are to be written after it, more than the context length"),
        ({"temperature": -1}, "temperature is -1.0: expected a finite number, 0 or more"),
        ({"top_p": 0}, "top_p is 0.0: expected a number above 0 and at most 1"),
        ({"n": 11}, "n is 11: expected 1 to 10"),
        ({"seed": 2**40}, f"seed is {2**40}: expected 0 to 2147483647"),
        ({"stop": [""]}, "stop is neither a text nor a list of at most 4 texts"),
        ({"stop": ["a"] * 5}, "stop is neither a text nor a list of at most 4 texts"),
        ({"tools": [{"type": "function"}]}, "tools is not supported by this server; leave it out"),
        ({"logprobs": True}, "logprobs is not supported by this server; leave it out"),
        ({"stream_options": {"include_usage": True}}, "or the reply is not streamed"),
        ({"streem": True}, "unknown field 'streem'; did you mean 'stream'?"),
    ],
)
def test_a_wrong_request_is_refused_in_one_sentence(client, fields, message):
    assert message in refused(client, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "me"},
        {"tools": []},
        {"logprobs": False},
        {"presence_penalty": 0},
        {"response_format": {"type": "text"}},
    ],
)
def test_fields_that_ask_for_nothing_are_accepted(fields):
    body = json.dumps({"messages": said("thing"), **fields}).encode()
    assert len(read_chat(body, Server(small_generator(), "small")).works) == 1
