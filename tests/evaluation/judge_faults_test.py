"""A judge that fails: each kind is one sentence or a counted failure, never a score, and what was answered is kept."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.evaluate_command import fail
from tests.helpers.judge_server import Reply, judge_server, says
from tests.helpers.judged import flags, judged, refused, write_generated
from tests.helpers.paths import ROOT
from tests.helpers.published import encoded_picture

GOOD = "Prompt Compliance: 5\nVisual Seamlessness: 4\nPhysical & Detail Fidelity: 3"
PROMPTS = {"add": "Rate: <edit_prompt>"}
PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in\n</title></head><body>no</body></html>"


def write(folder: Path, count: int) -> tuple[Path, Path]:
    """Writes the folder of so many judged edits, and the published file."""
    data = folder / "basic_edit.json"
    names = [str(number) for number in range(1, count + 1)]
    (folder / "1.png").write_bytes(encoded_picture((1, 2, 3)))
    data.write_text(json.dumps({name: {"id": "1.png", "prompt": f"of {name}", "edit_type": "add"} for name in names}))
    return write_generated(folder / "out", "imgedit", data), data


@pytest.fixture
def folder(tmp_path) -> tuple[Path, Path]:
    """Three edits."""
    return write(tmp_path, 3)


def good(text: str, times: int) -> Reply:
    return says(GOOD)


def only(reply: Reply):
    """Replies so about the second picture, and well about the others."""
    return lambda text, times: reply if text.endswith("of 2") else says(GOOD)


FAULTS = {
    "status_500": (Reply(500), "status 500", ""),
    "quota": (Reply(429, b'{"error": {"message": "quota"}}'), "status 429", "quota"),
    "status_400": (Reply(400, b'{"message": "too large"}'), "status 400", "too large"),
    "proxy_502": (Reply(502, PAGE, kind="text/html"), "status 502", "a web page, its title is 'Sign in'"),
    "page": (Reply(body=PAGE, kind="text/html"), "a web page", "its title is 'Sign in'"),
    "page_marked_as_json": (Reply(body=PAGE), "invalid reply", "Expecting value"),
    "half_json": (Reply(body=b'{"choices": [{"mess'), "invalid reply", "Unterminated"),
    "other_json": (Reply(body=b"{}"), "invalid reply", ""),
    "error_as_reply": (Reply(body=b'{"error": {"message": "no credits"}}'), "invalid reply", "no credits"),
    "no_text": (says(None), "invalid reply", "no text"),
    "cut_connection": (says(GOOD)._replace(cut=10), "no connection", ""),
    "empty_answer": (says(""), "unreadable answer", ""),
    "refusal_in_words": (says("I'm sorry, I can't rate 1 person."), "unreadable answer", "I'm sorry, I can't rate 1"),
    "other_language": (says("指令遵循：5\n视觉：4\n细节：3"), "unreadable answer", "指令遵循"),
    "half_answer": (says("Prompt Compliance: 5\nVisual Seaml"), "unreadable answer", "Visual Seaml"),
    "too_long": (says("Prompt Compliance: 5\nVis", end="length"), "cut off by --judge_max_tokens", "Vis"),
    "half_thought": (says(f"<think>\n{GOOD}\nor", end="length"), "cut off by --judge_max_tokens", "<think>"),
    "refusal": (says(None, refusal="I can't help."), "refusal", "I can't help."),
    "filtered": (says("", end="content_filter"), "refusal", "content filter"),
}
"""What a judge replies, and the reason and the detail of it on record."""


@pytest.mark.parametrize(("bad", "reason", "detail"), FAULTS.values(), ids=FAULTS)
def test_a_judgement_that_fails_is_counted_with_its_reason_and_no_score(folder, bad, reason, detail):
    score, _ = judged(*folder, only(bad), "--judge_retries=1", prompts=PROMPTS)
    assert (score["items_scored"], score["failed"], score["items_expected"]) == (2, 1, 3)
    assert score["averages"]["mean of kinds"] == 4.0
    assert score["judging"]["failed"] == {reason: 1}
    [failure] = json.loads((folder[0] / "judge/failures.json").read_text())
    assert (failure["picture"], failure["text"], failure["reason"]) == ("images/2.png", "add", reason)
    assert detail in failure["detail"]


def test_a_judge_that_is_too_slow_is_counted_and_no_score(folder):
    late = only(says(GOOD)._replace(seconds=600.0))
    score, _ = judged(*folder, late, "--judge_retries=0", "--judge_timeout=5", prompts=PROMPTS)
    assert (score["items_scored"], score["judging"]["failed"]) == (2, {"no answer in time": 1})


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (
            Reply(401, b'{"error": {"message": "Incorrect API key"}}'),
            "it refuses the key in OPENAI_API_KEY (status 401: Incorrect API key)",
        ),
        (Reply(403, PAGE, kind="text/html"), "refuses to judge (status 403: a web page, its title is 'Sign in')"),
        (
            Reply(404, b'{"error": {"message": "The model `judge` does not exist."}}'),
            "knows no model 'judge', or is no endpoint in OpenAI's format (status 404: The model `judge` does not",
        ),
    ],
    ids=["wrong_key", "forbidden", "unknown_model"],
)
def test_an_endpoint_that_refuses_ends_at_once(folder, monkeypatch, reply, message):
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    said, server = refused(*folder, lambda text, times: reply, "--judge_jobs=1", prompts=PROMPTS)
    assert message in said
    assert "\n" not in said
    assert len(server.requests) == 1
    assert not (folder[0] / "score.json").exists()


def test_a_key_that_is_needed_and_not_set_is_named(folder, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    said, _ = refused(*folder, lambda text, times: Reply(401), prompts=PROMPTS)
    assert "it refuses requests without a key, and OPENAI_API_KEY is not set" in said


@pytest.mark.parametrize("key", ["a\n", "two words", "schlüssel"])
def test_a_key_that_is_none_is_refused_before_any_question(folder, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    said, server = refused(*folder, good, prompts=PROMPTS)
    assert "OPENAI_API_KEY has spaces, line breaks or letters that are not ASCII" in said
    assert not server.requests


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000/v1", "expected a URL such as http://localhost:8000/v1"),
        ("http://", "expected a URL such as"),
        ("http://localhost:99999/v1", "expected a URL such as"),
        ("http://local host/v1", "expected a URL such as"),
        ("http://me:secret@localhost:8000/v1", "judge_url has a name or a password; set OPENAI_API_KEY"),
        ("http://localhost:8000/v1/chat/completions", "give the base URL, without /chat/completions"),
    ],
)
def test_a_url_that_is_none_is_refused(folder, url, message):
    assert message in fail("score", *flags(*folder, url, PROMPTS))


def test_a_url_without_v1_is_one_message(folder):
    with judge_server(good) as server:
        said = fail("score", *flags(*folder, server.url.removesuffix("/v1"), PROMPTS))
    assert "(status 404: Not Found); check --judge_model and --judge_url, whose path usually ends in /v1" in said


def test_a_server_that_is_not_there_is_one_message(folder):
    with judge_server(good) as server:
        pass
    said = fail("score", *flags(*folder, server.url, PROMPTS), "--judge_retries=0")
    assert "gave no usable answer to the first 3 questions (no connection): " in said
    assert "\n" not in said
    assert not (folder[0] / "score.json").exists()


def test_a_web_page_for_every_question_is_one_message(folder):
    said, _ = refused(*folder, lambda text, times: Reply(body=PAGE, kind="text/html"), prompts=PROMPTS)
    assert "gave no usable answer to the first 3 questions (a web page): its title is 'Sign in'; check" in said


def test_a_server_that_stops_is_given_up_and_its_answers_are_kept(tmp_path):
    out, data = write(tmp_path, 9)

    def answer(text: str, times: int) -> Reply:
        return says(GOOD) if text[-1] in "12" else Reply(503)

    said, server = refused(out, data, answer, "--judge_jobs=1", "--judge_retries=0", prompts=PROMPTS)
    assert "has stopped answering (status 503); 2 new answers are kept, so call again when it runs" in said
    assert len(server.requests) == 7
    _, server = judged(out, data, good, prompts=PROMPTS)
    assert len(server.requests) == 7


@pytest.mark.parametrize("bytes_kept", [0, 60])
@pytest.mark.parametrize("file", ["images/2.png", "sources/2.png"])
def test_an_empty_or_half_picture_is_named_before_any_question(folder, file, bytes_kept):
    picture = folder[0] / file
    picture.write_bytes(picture.read_bytes()[:bytes_kept])
    said, server = refused(*folder, good, prompts=PROMPTS)
    assert f"{picture} is empty, or no whole picture; remove it, and call `evaluate generate` again" in said
    assert not server.requests


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_call_ends_while_the_judge_is_silent_and_the_next_asks_the_rest(folder, number, status):
    out, data = folder
    with judge_server(only(says(GOOD)._replace(seconds=600.0))) as server:
        command = [sys.executable, "-m", "uno_jax.evaluate", "score", *flags(out, data, server.url, PROMPTS)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            deadline = time.monotonic() + 120
            while len(list((out / "judge/answers").glob("[!.]*.json"))) < 2 or len(server.requests) < 3:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
    assert process.returncode == status
    assert b"Traceback" not in said
    score, server = judged(out, data, good, prompts=PROMPTS)
    assert (score["items_scored"], len(server.requests)) == (3, 1)
