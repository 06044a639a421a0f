"""`evaluate score --judge_url`: what a judge is asked, what becomes of its answers, and what the next call asks."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.evaluate_command import fail, succeed
from tests.helpers.judge_server import Reply, Served, judge_server, says
from tests.helpers.judged import flags, judged, seen, text_of, write_generated
from tests.helpers.published import encoded_picture
from uno_jax.evaluation.benchmark import Item
from uno_jax.evaluation.judge.texts import filled, json_in, rating_in

GOOD = "Prompt Compliance: 5\nVisual Seamlessness: 4\nPhysical & Detail Fidelity: 3"
PROMPTS = {"add": "Rate: <edit_prompt>"}


@pytest.fixture
def data(tmp_path) -> Path:
    """Three edits as published."""
    for name in ("1", "2", "3"):
        (tmp_path / f"{name}.png").write_bytes(encoded_picture((int(name), 0, 0)))
    items = {name: {"id": f"{name}.png", "prompt": f"prompt of {name}", "edit_type": "add"} for name in "123"}
    file = tmp_path / "basic_edit.json"
    file.write_text(json.dumps(items))
    return file


@pytest.fixture
def out(data, tmp_path) -> Path:
    """The folder of their results."""
    return write_generated(tmp_path / "out", "imgedit", data)


def ask(out: Path, answer, *more: str) -> tuple[dict, Served]:
    return judged(out, out.parent / "basic_edit.json", answer, *more, prompts=PROMPTS)


def good(text: str, times: int) -> Reply:
    return says(GOOD)


def for_second(bad):
    """Answers well, but badly about the second picture: by the number of times that it was asked."""
    return lambda text, times: bad(times) if text.endswith("of 2") else says(GOOD)


def test_a_good_answer_is_scored(out):
    score, server = ask(out, good)
    assert score["averages"]["mean of kinds"] == 4.0
    assert (score["items_scored"], score["failed"]) == (3, 0)
    assert score["words"] == dict.fromkeys("123", GOOD)
    assert len(server.requests) == 3


def test_the_time_of_a_question_is_said_and_no_compilation(out, data):
    with judge_server(good) as server:
        said = succeed("score", *flags(out, data, server.url, PROMPTS), "--judge_jobs=1")
    assert "3 questions to judge, 3 to ask, 0 answered" in said
    assert re.search(r"3 of 3: \d+\.\d\d s a question", said)
    assert "compilation" not in said


def test_the_judge_sees_the_text_and_the_pictures_before_and_after(out):
    _, server = ask(out, good)
    [request] = [each for each in server.requests if "of 2" in text_of(each)]
    assert text_of(request) == "Rate: prompt of 2"
    assert seen(request) == [(out / file).read_bytes() for file in ("sources/2.png", "images/2.png")]
    assert request["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")
    assert (request["model"], request["temperature"]) == ("judge", 0.0)


def test_the_result_names_the_judge_with_its_version_texts_and_dates(out):
    score, _ = ask(out, good)
    assert score["judge"] == "judge (stated-model, v7)"
    about = score["judging"]
    assert (about["questions"], about["answered"], about["failed"]) == (3, 3, {})
    assert about["first_answer"][:2] == "20"
    assert (about["prompts"], len(about["prompts_sha256"])) == ("prompts.json", 64)


def test_the_key_comes_from_the_environment(out, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    _, server = ask(out, good)
    assert set(server.keys) == {"Bearer secret"}
    assert all("secret" not in file.read_text() for file in out.rglob("*.json"))


def test_several_questions_are_asked_at_once(out):
    all_there = threading.Barrier(3, timeout=120)

    def answer(text: str, times: int) -> Reply:
        all_there.wait()
        return says(GOOD)

    score, _ = ask(out, answer, "--judge_jobs=3")
    assert score["items_scored"] == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_request_that_fails_for_now_is_repeated(out, status):
    score, server = ask(out, for_second(lambda times: Reply(status) if times < 2 else says(GOOD)))
    assert score["items_scored"] == 3
    assert len(server.requests) == 5


def test_an_answer_that_cannot_be_read_is_asked_again(out):
    score, server = ask(out, for_second(lambda times: says("fine") if times < 2 else says(GOOD)))
    assert (score["items_scored"], len(server.requests)) == (3, 5)


@pytest.mark.parametrize(
    "answer",
    [
        "**Prompt Compliance:** 5\n- **Visual Seamlessness:** 4/5\n### Physical & Detail Fidelity: 3",
        "Prompt Compliance：5\nVisual Seamlessness：4\nPhysical & Detail Fidelity：3",
        f"<think>\nPrompt Compliance: 1\nis too little.</think>\n{GOOD}",
    ],
    ids=["markdown", "chinese_colons", "with_thoughts"],
)
def test_ratings_are_read_with_what_is_around_them(out, answer):
    score, _ = ask(out, lambda text, times: says(answer))
    assert score["averages"]["mean of kinds"] == 4.0


def test_the_next_call_asks_only_what_failed(out):
    ask(out, for_second(lambda times: says("fine")))
    score, server = ask(out, good)
    assert [text_of(each) for each in server.requests] == ["Rate: prompt of 2"]
    assert score["items_scored"] == 3


def test_a_question_that_is_refused_again_does_not_hide_the_scores_of_the_others(out):
    ask(out, for_second(lambda times: says("fine")))
    score, _ = ask(out, for_second(lambda times: says("I cannot rate this.")))
    assert (score["items_scored"], score["failed"]) == (2, 1)


@pytest.mark.parametrize("content", ["", '{"text": "Prompt Compl', '{"text": 5}', "[]"])
def test_half_an_answer_on_disk_is_asked_again(out, content):
    ask(out, good)
    [first, *_] = sorted((out / "judge/answers").glob("*.json"))
    first.write_text(content)
    score, server = ask(out, good)
    assert (score["items_scored"], len(server.requests)) == (3, 1)


def test_a_changed_picture_or_text_is_judged_again(out):
    ask(out, good)
    Image.new("RGB", (16, 16), (9, 9, 9)).save(out / "images/3.png")
    _, server = ask(out, good)
    assert len(server.requests) == 1


def test_texts_are_needed_if_there_are_none_of_this_project(out, data):
    message = fail(
        "score", f"--out={out}", f"--data={data}", "--judge_url=http://localhost:1/v1", "--judge_model=judge"
    )
    assert "--judge_url also needs --judge_prompts" in message


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ('{"score": 1}', {"score": 1}),
        ('Sure!\n```json\n{"score": 1}\n```\nBye {}', {"score": 1}),
        ('so {"score": 1} it is', {"score": 1}),
        ('{"score": 1', None),
        ("[1]", None),
        ("", None),
    ],
)
def test_json_in_an_answer(answer, found):
    assert json_in(answer) == found


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ('{"final_score": 4}', 4),
        ('{"final_score": 4.0}', 4),
        ('{"final_score": 4, "reasoning": 1. It is fine}', 4),
        ("**Final Score:** **4**", 4),
        ("Final Score: 4/5", 4),
        ("Final Scores：4。", 4),
        ("Final Score: 4. There are 2 cups.", 4),
        ("A Final Score of 5 would need more. Final Score: 1\nNo: Final Score: 4", 4),
        ('{"final_score": 4.5}', None),
        ("Final Score: 4.5", None),
        ("Final Score: 1-5", None),
        ("Final Score: 1, 0", None),
        ("Final Score: 6", None),
        ("Final Score: 45", None),
        ("I cannot give a score from 1 to 5 for this image.", None),
        ("最终得分：4", None),
    ],
)
def test_a_rating_follows_its_name(answer, found):
    assert rating_in(answer, "final_score", 1, 5) == found


def test_a_prompt_that_looks_like_a_field_is_not_filled():
    item = Item("1", "draw <Hint>", "any", "file", {"Hint": "a cup"})
    assert filled("<prompt> (<Hint>)", item) == "draw <Hint> (a cup)"


def test_a_text_for_python_format_is_filled_as_by_it():
    item = Item("1", "draw {N} cups", "any", "file", {"N": "3"})
    text = 'Do {instruct} in frame {N}. Answer {{"score": X}}'
    assert filled(text, item) == text.format(instruct="draw {N} cups", N="3")
    assert filled('Answer {{"score": X}}', item) == 'Answer {{"score": X}}'
