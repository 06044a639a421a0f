"""What all requests have in common: batches, limits, keys, clients that leave, health and metrics."""

from __future__ import annotations

import base64
import concurrent.futures
import dataclasses
import io
import json
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.helpers.served import TEXT, Held, held, served, wait_for
from tests.helpers.small_loaded import QUICK_SETTINGS, small_generator
from uno_jax.serving.server import Limits

pytestmark = pytest.mark.usefixtures("quick_compiles")

DRAW = "/v1/images/generations"
CHAT = "/v1/chat/completions"
QUESTION = {"messages": [{"role": "user", "content": "thing"}]}


@pytest.fixture(scope="module")
def pool() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        yield pool


def connected(address: str, **options: Any) -> httpx.Client:
    return httpx.Client(base_url=address, timeout=120, **options)


def waiting(client: httpx.Client) -> int:
    return client.get("/health").json()["waiting"]


def test_requests_that_come_together_are_drawn_in_one_batch_each_with_its_own_picture(pool):
    generator = held()
    with served(generator, limits=Limits(batch=2)) as address, connected(address) as client:
        first = pool.submit(client.post, DRAW, json={"prompt": "first", "size": "8x8", "seed": 0})
        wait_for(lambda: generator.batches_begun)
        prompts = ["thing", "yes", "number", "no"]
        sent = []
        for number, prompt in enumerate(prompts):
            fields = {"prompt": prompt, "seed": number}
            if prompt == "yes":
                fields |= {"text_scale": 2.0}
            sent.append(pool.submit(client.post, DRAW, json=fields))
            wait_for(lambda number=number: waiting(client) == number + 1)
        generator.proceed.set()
        replies = [future.result() for future in (first, *sent)]
    assert [reply.status_code for reply in replies] == [200] * 5
    assert generator.batches_begun == [["first"], ["thing", "number"], ["yes"], ["no"]]


def test_a_picture_of_a_batch_is_the_one_of_its_request(pool):
    with served(limits=Limits(batch=2, batch_wait=5.0)) as address, connected(address) as client:
        sent = [pool.submit(client.post, DRAW, json={"prompt": "thing", "seed": seed}) for seed in (3, 4)]
        replies = [future.result().json() for future in sent]
        assert 'uno_batches_total{work="pictures"} 1\n' in client.get("/metrics").text
    for seed, reply in zip((3, 4), replies, strict=True):
        drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(reply["data"][0]["b64_json"]))))
        [expected] = small_generator().generate_images(["thing"], QUICK_SETTINGS, seeds=[seed])
        assert np.abs(drawn.astype(int) - np.asarray(expected.image)).max() <= 1


def test_a_request_beyond_the_queue_is_answered_with_429(pool):
    generator = held()
    with served(generator, limits=Limits(queue=1)) as address, connected(address) as client:
        running = pool.submit(client.post, DRAW, json={"prompt": "thing"})
        wait_for(lambda: generator.batches_begun)
        waits = pool.submit(client.post, DRAW, json={"prompt": "thing"})
        wait_for(lambda: waiting(client) == 1)
        reply = client.post(CHAT, json=QUESTION)
        generator.proceed.set()
        assert [running.result().status_code, waits.result().status_code] == [200, 200]
    assert reply.status_code == 429
    assert reply.headers["retry-after"] == "1"
    assert reply.json()["error"] == {
        "message": "1 of the 1 places in the queue are taken, and the request needs 1; ask again later",
        "type": "rate_limit_error",
        "param": None,
        "code": "queue_full",
    }


def test_a_request_that_takes_too_long_is_answered_with_504(pool):
    generator = held()
    with served(generator, limits=Limits(timeout=1.0)) as address, connected(address) as client:
        running = pool.submit(client.post, DRAW, json={"prompt": "thing"})
        wait_for(lambda: generator.batches_begun)
        replies = [client.post(DRAW, json={"prompt": "late"}), running.result()]
        streamed = client.post(CHAT, json={**QUESTION, "stream": True})
        left = waiting(client)
        generator.proceed.set()
    assert [(reply.status_code, reply.json()["error"]["code"]) for reply in replies] == [(504, "timeout")] * 2
    error = json.loads(streamed.text.split("\n\n")[-2].removeprefix("data: "))["error"]
    assert error["message"] == "the request took longer than this server allows; ask for less, or ask later"
    assert left == 0
    assert generator.batches_begun == [["thing"]]


def left_after_sending(address: str, path: str, fields: dict[str, Any]) -> socket.socket:
    """Sends a request, and returns its connection without reading a reply."""
    url = httpx.URL(address)
    connection = socket.create_connection((url.host, url.port))
    body = json.dumps(fields).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


@pytest.mark.parametrize(("path", "fields"), [(DRAW, {"prompt": "gone"}), (CHAT, {**QUESTION, "stream": True})])
def test_a_request_whose_client_has_left_does_not_run(pool, path, fields):
    generator = held()
    with served(generator) as address, connected(address) as client:
        running = pool.submit(client.post, DRAW, json={"prompt": "thing"})
        wait_for(lambda: generator.batches_begun)
        connection = left_after_sending(address, path, fields)
        wait_for(lambda: waiting(client) == 1)
        connection.close()
        wait_for(lambda: waiting(client) == 0)
        generator.proceed.set()
        assert running.result().status_code == 200
        counted = client.get("/metrics").text
    assert generator.batches_begun == [["thing"]]
    assert "uno_tokens_written_total 0" in counted


def test_an_answer_stops_when_its_client_has_left():
    with served() as address, connected(address) as client:
        fields = {**QUESTION, "stream": True, "max_tokens": 1900}
        with client.stream("POST", CHAT, json=fields) as reply:
            next(line for line in reply.iter_lines() if '"content": "' in line and '"role"' not in line)
        wait_for(lambda: "uno_running 0" in client.get("/metrics").text)
        counted = client.get("/metrics").text
    assert 'uno_batches_total{work="answers"} 1' in counted
    assert "uno_tokens_written_total 0" in counted  # of complete answers


def test_requests_need_the_key_if_there_is_one():
    with served(key="secret") as address, connected(address) as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer sécret".encode()}):
            reply = client.post(DRAW, json={"prompt": "thing"}, headers=headers)
            assert reply.status_code == 401
            assert reply.json()["error"]["code"] == "invalid_api_key"
        assert client.get("/metrics").status_code == 401
        assert client.get("/health").status_code == 200
        assert client.get("/v1/models", headers={"authorization": "Bearer secret"}).status_code == 200


def test_the_model_is_listed_and_described():
    with served(name="runs/small") as address, connected(address) as client:
        [model] = client.get("/v1/models").json()["data"]
        assert (model["id"], model["object"]) == ("runs/small", "model")
        assert client.get("/v1/models/runs/small").json() == model
        assert client.get("/v1/models/other").json()["error"]["code"] == "model_not_found"


def test_metrics_count_requests_by_endpoint_and_status():
    with served() as address, connected(address) as client:
        client.get("/health")
        client.get("/health")
        client.post(DRAW, json={})
        client.get("/hidden")
        counted = client.get("/metrics").text
    assert '\nuno_requests_total{endpoint="/health",status="200"} 2\n' in counted
    assert '\nuno_requests_total{endpoint="/v1/images/generations",status="400"} 1\n' in counted
    assert '\nuno_requests_total{endpoint="other",status="404"} 1\n' in counted
    assert "\n# TYPE uno_waiting gauge\nuno_waiting 0\n" in counted


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/images/variations", 404), ("GET", DRAW, 405)])
def test_what_the_server_lacks_is_refused_in_the_same_format(method, path, status):
    with served() as address, connected(address) as client:
        reply = client.request(method, path)
    assert reply.status_code == status
    assert f"there is no {method} {path} here; use one of POST /v1/images/gen" in reply.json()["error"]["message"]


class Failing(Held):
    """Draws no batch with the prompt `bad`."""

    def generate(self, requests, batch_size=1):
        if any(request.context[-1] == "bad" for request in requests):
            raise RuntimeError("a fault of the program at /secret/place")
        yield from small_generator().generate(requests, batch_size)


@pytest.fixture
def worker_log(caplog, monkeypatch):
    """What the thread of the model logs, whatever other tests have done to loggers."""
    logger = logging.getLogger("uno_jax.serving.worker")
    monkeypatch.setattr(logger, "disabled", False)
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.ERROR, logger=logger.name):
        yield caplog
    logger.removeHandler(caplog.handler)


def test_an_error_of_the_program_is_not_told_and_costs_no_other_request(pool, worker_log):
    generator = Failing(small_generator().reader)
    with served(generator, limits=Limits(batch=2, batch_wait=5.0)) as address, connected(address) as client:
        sent = [pool.submit(client.post, DRAW, json={"prompt": prompt}) for prompt in ("bad", "thing")]
        bad, good = (future.result() for future in sent)
        assert good.status_code == 200
        assert client.get("/health").status_code == 200
    assert bad.status_code == 500
    assert bad.json()["error"]["message"] == "the server failed at this request; its log says why"
    assert "a fault of the program" in worker_log.text


class Ended(Held):
    """Ends the thread of the model at its first batch."""

    def generate(self, requests, batch_size=1):
        raise SystemExit


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_server_is_not_healthy_without_the_thread_of_its_model():
    with served(Ended(small_generator().reader), limits=Limits(timeout=1.0)) as address, connected(address) as client:
        assert client.post(DRAW, json={"prompt": "thing"}).status_code == 504
        reply = client.get("/health")
    assert reply.status_code == 503
    assert reply.json()["error"]["message"] == "the model has stopped; start the server again"


@pytest.mark.slow
def test_of_200_mixed_requests_from_20_clients_none_is_lost_and_each_gets_its_own_result():
    """Each client sends ten requests, one after the other, and asks again after 429."""
    sizes, words, refusals = ("8x8", "16x8", "16x16"), ("thing", "number", "yes", "no"), []
    generator = small_generator()

    def one(number: int) -> tuple[str, Any]:
        word, size, seed = words[number % 4], sizes[number % 3], number
        if number % 5 == 4:
            return CHAT, {"messages": [{"role": "user", "content": word}], "temperature": 1.5, "seed": seed}
        return DRAW, {"prompt": word, "size": size, "seed": seed}

    def send(client_number: int, address: str) -> dict[int, Any]:
        found = {}
        with connected(address) as client:
            for number in range(client_number, 200, 20):
                path, fields = one(number)
                while (reply := client.post(path, json=fields)).status_code == 429:
                    refusals.append(number)
                    time.sleep(float(reply.headers["retry-after"]) * 0.1)
                assert reply.status_code == 200, reply.text
                found[number] = reply.json()
        return found

    with (
        served(limits=Limits(queue=12, timeout=600)) as address,
        concurrent.futures.ThreadPoolExecutor(20) as clients,
    ):
        replies: dict[int, Any] = {}
        for found in clients.map(lambda number: send(number, address), range(20)):
            replies |= found
        counted = httpx.get(f"{address}/metrics").text
    print(counted, f"refused and sent again: {len(refusals)}")
    assert sorted(replies) == list(range(200))
    for number, reply in replies.items():
        path, fields = one(number)
        if path == CHAT:
            text = dataclasses.replace(TEXT, temperature=1.5)
            [expected] = generator.answer([()], [words[number % 4]], text, seeds=[number])
            assert reply["choices"][0]["message"]["content"] == expected.text
        else:
            drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(reply["data"][0]["b64_json"]))))
            settings = dataclasses.replace(QUICK_SETTINGS, size=fields["size"])
            [alone] = generator.generate_images([fields["prompt"]], settings, seeds=[number])
            assert np.abs(drawn.astype(int) - np.asarray(alone.image)).max() <= 1
