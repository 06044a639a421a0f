"""`evaluate score --judge_url`: a judge that answers well, slowly, wrongly, in Markdown, in half, or not at all."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.evaluate_command import fail, succeed
from tests.helpers.evaluated import write_evaluated
from tests.helpers.judge_server import Reply, Served, judge_server, says
from tests.helpers.published import write_gedit, write_wise
from uno_jax.evaluation.benchmark import Item
from uno_jax.evaluation.judge.texts import filled, json_in

GOOD = "Prompt Compliance: 5\nVisual Seamlessness: 4\nPhysical & Detail Fidelity: 3"
IDS = ("1", "2", "3")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with three judged edits: the pictures, the published file, and texts for the judge."""
    items = {name: {"id": f"{name}.png", "prompt": f"prompt of {name}", "edit_type": "add"} for name in IDS}
    (tmp_path / "basic_edit.json").write_text(json.dumps(items))
    (tmp_path / "prompts.json").write_text(json.dumps({"add": "Rate: <edit_prompt>"}))
    write_evaluated(tmp_path / "out", "imgedit", dict.fromkeys(IDS, "add"))
    for name in IDS:
        (tmp_path / "out/sources").mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (int(name), 0, 0)).save(tmp_path / f"out/sources/{name}.png")
    return tmp_path


def command(folder: Path, url: str, *more: str, run=succeed) -> str:
    return run(
        "score",
        f"--out={folder / 'out'}",
        f"--data={folder / 'basic_edit.json'}",
        f"--judge_url={url}",
        "--judge_model=judge",
        f"--judge_prompts={folder / 'prompts.json'}",
        *more,
    )


def judged(folder: Path, answer, *more: str) -> tuple[dict, Served]:
    """Returns the score by a judge who answers so, and the server."""
    with judge_server(answer) as server:
        command(folder, server.url, *more)
    return json.loads((folder / "out/score.json").read_text()), server


def for_second(bad):
    """Answers well, but badly about the second picture: by the number of times that it was asked."""
    return lambda text, times: bad(times) if text.endswith("of 2") else says(GOOD)


def test_a_good_answer_is_scored(folder):
    score, server = judged(folder, lambda text, times: says(GOOD))
    assert score["averages"]["mean of kinds"] == 4.0
    assert (score["items_scored"], score["failed"]) == (3, 0)
    assert len(server.requests) == 3


def test_the_judge_sees_the_text_and_the_pictures_before_and_after(folder):
    _, server = judged(folder, lambda text, times: says(GOOD))
    [request] = [each for each in server.requests if "of 2" in each["messages"][0]["content"][0]["text"]]
    text, before, after = request["messages"][0]["content"]
    assert text == {"type": "text", "text": "Rate: prompt of 2"}
    for part, file in ((before, "sources/2.png"), (after, "images/2.png")):
        url = part["image_url"]["url"]
        assert url.startswith("data:image/png;base64,")
        assert base64.b64decode(url.split(",")[1]) == (folder / "out" / file).read_bytes()
    assert (request["model"], request["temperature"]) == ("judge", 0.0)


def test_the_result_names_the_judge_with_its_version_and_dates(folder):
    score, _ = judged(folder, lambda text, times: says(GOOD))
    assert score["judge"] == "judge (stated-model, v7)"
    about = score["judging"]
    assert (about["questions"], about["answered"], about["failed"]) == (3, 3, {})
    assert about["first_answer"][:2] == "20"
    assert len(about["prompts_sha256"]) == 64


def test_the_key_comes_from_the_environment(folder, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    _, server = judged(folder, lambda text, times: says(GOOD))
    assert set(server.keys) == {"Bearer secret"}
    assert all("secret" not in file.read_text() for file in (folder / "out").rglob("*.json"))


def test_several_questions_are_asked_at_once(folder):
    all_there = threading.Barrier(3, timeout=120)

    def answer(text: str, times: int) -> Reply:
        all_there.wait()
        return says(GOOD)

    score, _ = judged(folder, answer, "--judge_jobs=3")
    assert score["items_scored"] == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_request_that_fails_for_now_is_repeated(folder, status):
    score, server = judged(folder, for_second(lambda times: Reply(status) if times < 2 else says(GOOD)))
    assert score["items_scored"] == 3
    assert len(server.requests) == 5


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Reply(500), "status 500"),
        (Reply(429), "status 429"),
        (Reply(400), "status 400"),
        (says("It looks fine."), "unreadable answer"),
        (says("Prompt Compliance: 5\nVisual Seaml"), "unreadable answer"),
        (says(None), "invalid reply"),
        (Reply(body=b'{"choices": [{"mess'), "invalid reply"),
        (Reply(body=b"<html>busy</html>"), "invalid reply"),
        (Reply(body=b"{}"), "invalid reply"),
        (says(GOOD)._replace(cut=10), "no connection"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else None,
)
def test_a_judgement_that_fails_is_counted_and_no_score(folder, bad, reason):
    score, _ = judged(folder, for_second(lambda times: bad), "--judge_retries=1")
    assert (score["items_scored"], score["failed"], score["items_expected"]) == (2, 1, 3)
    assert score["averages"]["mean of kinds"] == 4.0
    assert score["judging"]["failed"] == {reason: 1}
    assert json.loads((folder / "out/judge/failures.json").read_text()) == [["2", "add", reason]]


def test_a_judge_that_is_too_slow_is_counted_and_no_score(folder):
    late = for_second(lambda times: says(GOOD)._replace(seconds=600.0))
    score, _ = judged(folder, late, "--judge_retries=0", "--judge_timeout=5")
    assert (score["items_scored"], score["judging"]["failed"]) == (2, {"no answer in time": 1})


def test_an_answer_that_cannot_be_read_is_asked_again(folder):
    score, server = judged(folder, for_second(lambda times: says("fine") if times < 2 else says(GOOD)))
    assert (score["items_scored"], len(server.requests)) == (3, 5)


def test_ratings_in_markdown_are_read(folder):
    marked = "**Prompt Compliance:** 5\n- **Visual Seamlessness:** 4/5\n### Physical & Detail Fidelity: 3"
    score, _ = judged(folder, lambda text, times: says(marked))
    assert score["averages"]["mean of kinds"] == 4.0


def test_the_next_call_asks_only_what_failed(folder):
    judged(folder, for_second(lambda times: says("fine")))
    score, server = judged(folder, lambda text, times: says(GOOD))
    assert [each["messages"][0]["content"][0]["text"] for each in server.requests] == ["Rate: prompt of 2"]
    assert score["items_scored"] == 3


def test_a_changed_picture_or_text_is_judged_again(folder):
    judged(folder, lambda text, times: says(GOOD))
    Image.new("RGB", (16, 16), (9, 9, 9)).save(folder / "out/images/3.png")
    _, server = judged(folder, lambda text, times: says(GOOD))
    assert len(server.requests) == 1


def test_a_judge_that_is_not_there_is_one_message(folder):
    with judge_server(lambda text, times: says(GOOD)) as server:
        pass
    message = command(folder, server.url, "--judge_retries=0", run=fail)
    assert "gave no usable answer to the first 3 questions (no connection)" in message
    assert not (folder / "out/score.json").exists()


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_model_ends_at_once(folder, status):
    with judge_server(lambda text, times: Reply(status)) as server:
        assert "refuses to judge" in command(folder, server.url, "--judge_jobs=1", run=fail)
    assert len(server.requests) == 1


def test_wise_is_judged_by_three_lines(tmp_path):
    data = write_wise(tmp_path / "data")
    out = write_evaluated(tmp_path / "out", "wise", {"1": "any", "400": "any"})
    record = json.loads((out / "record.json").read_text())
    for item in record["items"]:
        item["prompt"] = "thing"
    (out / "record.json").write_text(json.dumps(record))
    (tmp_path / "prompts.json").write_text(json.dumps({"wise": "Rate <prompt>, that is <Explanation>"}))
    with judge_server(lambda text, times: says("**Consistency:** 2\nRealism: 1\nAesthetic Quality: 0")) as server:
        succeed(
            "score",
            f"--out={out}",
            f"--data={data}",
            f"--judge_url={server.url}",
            "--judge_model=judge",
            f"--judge_prompts={tmp_path / 'prompts.json'}",
            "--judge_jobs=1",
        )
    assert server.requests[0]["messages"][0]["content"][0]["text"] == "Rate thing, that is a thing"
    # (0.7 * 2 + 0.2 * 1) / 2; the second picture is the same, and the question too.
    assert json.loads((out / "score.json").read_text())["items"] == {"1": pytest.approx(0.8), "400": pytest.approx(0.8)}


def test_gedit_takes_the_lowest_rating_of_each_aspect(tmp_path):
    data = write_gedit(tmp_path / "data")
    out = write_evaluated(tmp_path / "out", "gedit_en", {"color_alter/0a1b": "color_alter"})
    record = json.loads((out / "record.json").read_text())
    record["items"][0]["prompt"] = "thing"
    (out / "record.json").write_text(json.dumps(record))
    [picture] = out.rglob("0a1b.png")
    Image.new("RGB", (24, 16)).save(picture.with_name("0a1b_SRCIMG.png"))
    (tmp_path / "prompts.json").write_text(json.dumps({"SC": "semantics of <prompt>", "PQ": "quality"}))
    answers = {"quality": '```json\n{"score": [9, 9.5]}\n```', "semantics of thing": 'So: {"score": [4, 7]}.'}
    with judge_server(lambda text, times: says(answers[text])) as server:
        succeed(
            "score",
            f"--out={out}",
            f"--data={data}",
            f"--judge_url={server.url}",
            "--judge_model=judge",
            f"--judge_prompts={tmp_path / 'prompts.json'}",
        )
    averages = json.loads((out / "score.json").read_text())["averages"]
    assert (averages["SC"], averages["PQ"], averages["O"]) == (4.0, 9.0, 6.0)
    sizes = [len(each["messages"][0]["content"]) for each in sorted(server.requests, key=str)]
    assert sorted(sizes) == [2, 3]


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


def test_a_prompt_that_looks_like_a_field_is_not_filled():
    item = Item("1", "draw <Hint>", "any", "file", {"Hint": "a cup"})
    assert filled("<prompt> (<Hint>)", item) == "draw <Hint> (a cup)"
