"""What the judge of each benchmark is asked about, and how its answers become the published averages."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.helpers.judge_server import says
from tests.helpers.judged import judged, seen, text_of, write_generated
from tests.helpers.published import write_gedit, write_wise


def test_wise_is_judged_by_three_lines(tmp_path):
    data = write_wise(tmp_path / "data")
    out = write_generated(tmp_path / "out", "wise", data)
    answer = says("**Consistency:** 2\nRealism: 1\nAesthetic Quality: 0")
    prompts = {"wise": "Rate <prompt>, that is <Explanation>"}
    score, server = judged(out, data, lambda text, times: answer, prompts=prompts)
    assert {text_of(request) for request in server.requests} == {"Rate thing, that is a thing"}
    # (0.7 * 2 + 0.2 * 1) / 2
    assert score["items"]["568"] == pytest.approx(0.8)
    assert score["items_scored"] == 7


def test_gedit_takes_the_lowest_rating_of_each_aspect(tmp_path):
    data = write_gedit(tmp_path / "data")
    out = write_generated(tmp_path / "out", "gedit_en", data)
    answers = {"quality": '```json\n{"score": [9, 9.5]}\n```', "semantics of thing": 'So: {"score": [4, 7]}.'}
    prompts = {"SC": "semantics of <prompt>", "PQ": "quality"}
    score, server = judged(out, data, lambda text, times: says(answers[text]), prompts=prompts)
    averages = score["averages"]
    assert (averages["SC"], averages["PQ"], averages["O"]) == (4.0, 9.0, 6.0)
    assert sorted(len(seen(request)) for request in server.requests) == [1, 1, 2, 2]
    with Image.open(out / "judge/resized/color_alter/0a1b.png") as shown:
        assert shown.size == (24, 16)  # that of the picture before
