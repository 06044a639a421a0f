"""Pictures over HTTP: the endpoints for generations and edits."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tests.helpers.made_up_plans import latents_of
from tests.helpers.made_up_records import picture
from tests.helpers.served import served
from tests.helpers.small_loaded import QUICK, QUICK_SETTINGS, save_small_checkpoint, small_generator
from uno_jax import sample
from uno_jax.data.transforms import encode_png
from uno_jax.inference.generate import load_generator

pytestmark = pytest.mark.usefixtures("quick_compiles")

SOURCE = latents_of(1, 2, seed=3)
SOURCE_PNG = encode_png(Image.fromarray(SOURCE))


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with served() as address, httpx.Client(base_url=address, timeout=120) as client:
        yield client


def generated(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    reply = client.post("/v1/images/generations", json={"prompt": "thing", **fields})
    assert reply.status_code == 200, reply.text
    return reply.json()


def pixels(item: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(item["b64_json"]))))


def refused(reply: httpx.Response) -> str:
    """Returns the message of a refusal, in the format of OpenAI's API."""
    assert reply.status_code >= 400
    assert reply.json()["error"].keys() == {"message", "type", "param", "code"}
    message = reply.json()["error"]["message"]
    assert len(message.splitlines()) == 1
    return message


def test_a_picture_is_that_of_sample_with_the_seed(tmp_path):
    checkpoint = save_small_checkpoint(tmp_path / "checkpoint")
    quick = [f"--{name}={value}" for name, value in QUICK.items()]
    arguments = [f"--checkpoint={checkpoint}", f"--out={tmp_path / 'out'}", "--prompt=thing", "--seed=5", "--sheet=0"]
    sample.main([*arguments, *quick], Console(file=io.StringIO()))
    with served(load_generator(checkpoint)) as address, httpx.Client(base_url=address, timeout=120) as client:
        [item] = generated(client, seed=5)["data"]
    np.testing.assert_array_equal(pixels(item), np.asarray(Image.open(tmp_path / "out" / "00000-thing-seed5.png")))


def test_several_pictures_have_consecutive_seeds(client):
    items = generated(client, seed=3, n=2)["data"]
    assert [item["seed"] for item in items] == [3, 4]
    for item in items:
        [expected] = small_generator().generate_images(["thing"], QUICK_SETTINGS, seeds=[item["seed"]])
        assert np.abs(pixels(item).astype(int) - np.asarray(expected.image)).max() <= 1  # a batch changes rounding


def test_without_a_seed_one_is_drawn_and_told(client):
    one, two = (generated(client)["data"][0] for _ in range(2))
    assert one["seed"] != two["seed"]
    [again] = generated(client, seed=one["seed"])["data"]
    assert again["b64_json"] == one["b64_json"]


def test_settings_of_a_request_replace_those_of_the_server(client):
    reply = generated(client, seed=1, size="16x8", negative="number", text_scale=2.0)
    settings = dataclasses.replace(QUICK_SETTINGS, seed=1, size="16x8", negative="number", text_scale=2.0)
    [expected] = small_generator().generate_images(["thing"], settings)
    assert reply["size"] == "16x8"
    np.testing.assert_array_equal(pixels(reply["data"][0]), np.asarray(expected.image))


def test_the_size_auto_is_that_of_the_server(client):
    assert generated(client, size="auto")["size"] == "16x16"


def test_a_picture_can_be_a_data_url(client):
    [item] = generated(client, seed=1, response_format="url")["data"]
    [expected] = generated(client, seed=1)["data"]
    assert item["url"] == f"data:image/png;base64,{expected['b64_json']}"


@pytest.mark.slow
def test_a_thought_is_told_with_its_picture(client):
    generator = small_generator()
    thinking = dataclasses.replace(generator.thinking, text=dataclasses.replace(generator.thinking.text, max_length=7))
    with served(dataclasses.replace(generator, thinking=thinking)) as address:
        [item] = generated(httpx.Client(base_url=address, timeout=120), think=True)["data"]
    assert item["thought"]


@pytest.mark.parametrize("field", ["image", "image[]"])
def test_an_edit_reads_the_pictures_of_the_form(client, field):
    other = picture(8)
    files = [(field, ("one.png", other)), (field, ("two.png", SOURCE_PNG))]
    reply = client.post("/v1/images/edits", files=files, data={"prompt": "thing", "seed": "3", "n": "1"})
    assert reply.status_code == 200, reply.text
    settings = dataclasses.replace(QUICK_SETTINGS, seed=3)
    [expected] = small_generator().edit_images([[Image.open(io.BytesIO(other)), SOURCE]], ["thing"], settings)
    np.testing.assert_array_equal(pixels(reply.json()["data"][0]), np.asarray(expected.image))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": " "}, "prompt is empty; describe the picture"),
        ({"prompt": None}, "request.prompt is missing"),
        ({"prompt": 3}, "request.prompt is 3 (int): expected str"),
        ({"n": 0}, "n is 0: expected 1 to 10"),
        ({"n": 11}, "n is 11: expected 1 to 10"),
        ({"n": 1.5}, "request.n is 1.5 (float): expected int"),
        ({"size": "12x16"}, "size is 12x16: expected multiples of 8"),
        ({"size": "large"}, "size is 'large': expected a value such as 96x64"),
        ({"seed": -1}, "seed is -1: expected 0 to 2147483647"),
        ({"seed": 2**31 - 1, "n": 2}, "seed is 2147483648: expected 0 to 2147483647"),
        ({"timesteps": 501}, "timesteps is 501: expected at most 500"),
        ({"quality": "hd"}, "quality is not supported by this server; leave it out"),
        ({"stream": True}, "stream is not supported by this server; leave it out"),
        ({"output_format": "jpeg"}, "request.output_format is 'jpeg': expected one of 'png'"),
        ({"promt": "x"}, "unknown field 'promt'; did you mean 'prompt'?"),
        ({"prompt": "thing " * 20_000}, "more than the context length of 2,048 of this model"),
        ({"negative": "thing " * 20_000}, "more than the context length of 2,048 of this model"),
    ],
)
def test_a_wrong_request_is_refused_in_one_sentence(client, fields, message):
    reply = client.post("/v1/images/generations", json={"prompt": "thing", **fields})
    assert message in refused(reply)
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"


def test_another_model_is_refused(client):
    reply = client.post("/v1/images/generations", json={"prompt": "thing", "model": "gpt-image-1"})
    assert refused(reply) == "there is no model 'gpt-image-1' here; use 'small'"
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is not valid JSON"),
        (b"[]", "the body is a JSON list; send one JSON object"),
        (b'{"prompt": "a", "prompt": "b"}', "the key 'prompt' occurs twice"),
        (rb'{"prompt": "\ud83d"}', "prompt has half of a surrogate pair, which is not valid Unicode"),
    ],
)
def test_a_body_that_is_no_object_is_refused(client, body, message):
    headers = {"content-type": "application/json"}
    assert message in refused(client.post("/v1/images/generations", content=body, headers=headers))


def test_a_body_that_a_page_of_another_site_could_send_is_refused(client):
    reply = client.post("/v1/images/generations", content=b"{}", headers={"content-type": "text/plain"})
    assert refused(reply) == "the content type is text/plain: expected application/json"


@pytest.mark.parametrize(
    ("files", "data", "message"),
    [
        ([("other", b"x")], {"prompt": "thing"}, "other is a file: files belong into the field image"),
        ([("image", b"not a picture")], {"prompt": "thing"}, "image 1: not a picture"),
        ([("image", SOURCE_PNG)] * 9, {"prompt": "thing"}, "9 pictures are given: expected at most 8"),
        ([("image", SOURCE_PNG)], {}, "request.prompt is missing"),
        ([("image", SOURCE_PNG)], {"prompt": "thing", "n": "many"}, "request.n is 'many' (str): expected int"),
        ([("image", SOURCE_PNG), ("mask", SOURCE_PNG)], {"prompt": "thing"}, "mask is a file"),
    ],
)
def test_a_wrong_form_is_refused_in_one_sentence(client, files, data, message):
    reply = client.post("/v1/images/edits", files=[(name, ("a.png", one)) for name, one in files], data=data)
    assert message in refused(reply)


def test_an_edit_without_a_picture_is_refused(client):
    reply = client.post("/v1/images/edits", files=[("prompt", (None, "thing"))])
    assert "there is no image; send the picture to edit as a file in the field image" in refused(reply)


def test_too_large_a_body_is_refused(client):
    reply = client.post("/v1/images/edits", files=[("image", ("a.png", bytes(2**26)))], data={"prompt": "thing"})
    assert refused(reply) == "the request has more than the maximum of 67,108,864 bytes; send less"
    assert reply.status_code == 413
