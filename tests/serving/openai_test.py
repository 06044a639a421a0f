"""OpenAI's own client, used with the server."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import numpy as np
import openai
import pytest
from PIL import Image

from tests.helpers.made_up_plans import latents_of
from tests.helpers.served import TEXT, served
from tests.helpers.small_loaded import QUICK_SETTINGS, small_generator
from uno_jax.data.transforms import encode_png

pytestmark = pytest.mark.usefixtures("quick_compiles")

SOURCE = latents_of(1, 2, seed=3)
SOURCE_PNG = encode_png(Image.fromarray(SOURCE))
SOURCE_URL = f"data:image/png;base64,{base64.b64encode(SOURCE_PNG).decode()}"
MESSAGES = [{"role": "user", "content": "thing"}]


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    with served(key="secret") as address:
        yield openai.OpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0)


def decoded(encoded: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


def test_images_generate(client):
    reply = client.images.generate(model="small", prompt="thing", size="16x16", n=1, extra_body={"seed": 3})
    [expected] = small_generator().generate_images(["thing"], QUICK_SETTINGS, seeds=[3])
    np.testing.assert_array_equal(decoded(reply.data[0].b64_json), np.asarray(expected.image))
    assert reply.data[0].seed == 3


@pytest.mark.parametrize("image", [("a.png", SOURCE_PNG), [("a.png", SOURCE_PNG)]])
def test_images_edit(client, image):
    reply = client.images.edit(model="small", image=image, prompt="thing", n=1, extra_body={"seed": 3})
    [expected] = small_generator().edit_images([SOURCE], ["thing"], QUICK_SETTINGS, seeds=[3])
    np.testing.assert_array_equal(decoded(reply.data[0].b64_json), np.asarray(expected.image))


def test_chat_completions(client):
    parts = [{"type": "image_url", "image_url": {"url": SOURCE_URL}}, {"type": "text", "text": "thing"}]
    reply = client.chat.completions.create(model="small", messages=[{"role": "user", "content": parts}])
    [expected] = small_generator().answer([SOURCE], ["thing"], TEXT)
    assert reply.choices[0].message.content == expected.text
    assert reply.usage.completion_tokens == 6


def test_chat_completions_streamed(client):
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="small", messages=MESSAGES, stream=True, stream_options=options))
    [expected] = small_generator().answer([()], ["thing"], TEXT)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == expected.text
    assert chunks[-1].usage.completion_tokens == 6


def test_chat_completions_with_a_picture_as_the_reply(client):
    reply = client.chat.completions.create(
        model="small", messages=MESSAGES, extra_body={"modalities": ["image"], "seed": 3}
    )
    [expected] = small_generator().generate_images(["thing"], QUICK_SETTINGS, seeds=[3])
    [image] = reply.choices[0].message.images
    encoded = image["image_url"]["url"].removeprefix("data:image/png;base64,")
    np.testing.assert_array_equal(decoded(encoded), np.asarray(expected.image))


def test_models(client):
    assert [model.id for model in client.models.list()] == ["small"]
    assert client.models.retrieve("small").owned_by == "uno_jax"


def test_errors_are_those_of_the_client(client):
    with pytest.raises(openai.BadRequestError, match="prompt is empty; describe the picture"):
        client.images.generate(model="small", prompt=" ")
    with pytest.raises(openai.NotFoundError, match="there is no model 'other' here; use 'small'"):
        client.chat.completions.create(model="other", messages=MESSAGES)
    with pytest.raises(openai.AuthenticationError, match="the API key is missing or wrong"):
        client.with_options(api_key="wrong").models.list()
