"""What the judge of each benchmark is asked about, and how its answers become the published averages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.helpers.judge_server import says
from tests.helpers.judged import judged, seen, text_of, write_generated
from tests.helpers.published import encoded_picture, write_gedit, write_unigen, write_wise
from uno_jax.evaluation.benchmark import BenchmarkError
from uno_jax.evaluation.judge.texts import filled
from uno_jax.evaluation.registry import BENCHMARKS


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


def write_kris(folder: Path, category: str, pictures: Any, truth: str = "") -> Path:
    """Writes one edit of KRIS-Bench, with id 5. Returns the folder of all categories."""
    (folder / category).mkdir(parents=True)
    names = [*(pictures if isinstance(pictures, list) else [pictures]), *([truth] if truth else [])]
    for number, name in enumerate(names):
        (folder / category / name).write_bytes(encoded_picture((number, 50, 50)))
    record = {"ori_img": pictures, "gt_img": truth, "ins_en": "melt it", "explain_en": "it is water then"}
    (folder / category / "annotation.json").write_text(json.dumps({"5": record}))
    return folder


BOTH = ("Original image:", "Edited image:")


@pytest.mark.parametrize(
    ("category", "pictures", "truth", "asked"),
    [
        ("color_change", "5.png", "", {"prompt_consist": BOTH, "prompt_instruction_following": BOTH}),
        ("anomaly_correction", "5.png", "", {"prompt_consist": BOTH, "prompt_instruction_following": BOTH}),
        ("abstract_reasoning", "5.png", "", {"prompt_consist": BOTH, "prompt_dual_evaluation": BOTH}),
        (
            "viewpoint_change",
            "5.png",
            "5_gt.png",
            {"prompt_consist": BOTH, "prompt_view_instruction_following": (*BOTH, "Ground-truth image:")},
        ),
        (
            "multi-element_composition",
            ["5_1.png", "5_2.png"],
            "",
            dict.fromkeys(
                ("prompt_consist_multi", "prompt_instruction_multi"),
                ("Reference image 1:", "Reference image 2:", "Predicted image:"),
            ),
        ),
        (
            "temporal_prediction",
            ["5-1.png", "5-3.png", "5-4.png"],
            "5-2.png",
            dict.fromkeys(
                ("prompt_consist_temporal", "prompt_instruction_temporal"),
                ("Frame 1 (reference):", "Frame 2 (generated):", "Frame 3 (reference):", "Frame 4 (reference):"),
            ),
        ),
    ],
    ids=["common", "anomaly", "knowledge", "view", "several_sources", "frames"],
)
def test_kris_asks_by_category_and_always_about_quality(tmp_path, category, pictures, truth, asked):
    data = write_kris(tmp_path / "data", category, pictures, truth)
    out = write_generated(tmp_path / "out", "kris", data)
    benchmark = BENCHMARKS["kris"]
    [item] = benchmark.read(data).items
    asks = benchmark.judging.asks(data, out, item, out / benchmark.picture(item, 0, "base"))
    assert {ask.template: ask.captions for ask in asks} == {**asked, "prompt_quality": ("Edited image:",)}
    assert all(len(ask.pictures) == len(ask.captions) and all(file.is_file() for file in ask.pictures) for ask in asks)


def test_kris_shows_the_generated_frame_at_its_place(tmp_path):
    data = write_kris(tmp_path / "data", "temporal_prediction", ["5-2.png", "5-3.png", "5-4.png"], "5-1.png")
    out = write_generated(tmp_path / "out", "kris", data)
    benchmark = BENCHMARKS["kris"]
    [item] = benchmark.read(data).items
    picture = out / benchmark.picture(item, 0, "base")
    [consistency, *_] = benchmark.judging.asks(data, out, item, picture)
    assert consistency.pictures == (picture, *(out / file for file in (item.source, *item.more)))
    assert filled("frame {N}", item) == "frame 1"


def test_a_missing_true_view_of_kris_is_named(tmp_path):
    data = write_kris(tmp_path / "data", "viewpoint_change", "5.png", "5_gt.png")
    out = write_generated(tmp_path / "out", "kris", data)
    (data / "viewpoint_change/5_gt.png").unlink()
    benchmark = BENCHMARKS["kris"]
    [item] = benchmark.read(data).items
    with pytest.raises(BenchmarkError, match="5_gt.png; download the whole folder KRIS_Bench"):
        benchmark.judging.asks(data, out, item, out / benchmark.picture(item, 0, "base"))


def test_kris_pools_the_ratings_of_a_judge_who_reads_own_texts(tmp_path):
    data = write_kris(tmp_path / "data", "physics", "5.png")
    out = write_generated(tmp_path / "out", "kris", data)

    def answer(text: str, times: int):
        if "knowledge_score" in text:
            assert "Instruction: melt it\nExplanation: it is water then" in text
            return says('Fine. {"instruction_score": 4, "knowledge_score": 2}')
        return says('**"consistency_score"**: 5' if "consistency_score" in text else "no score")

    score, server = judged(out, data, answer)
    # (5 + 4 + 2) / 3; the question about quality failed three times.
    assert score["averages"]["conceptual knowledge"] == pytest.approx(25 * (11 / 3 - 1))
    assert (score["items_scored"], score["failed"], score["judging"]["failed"]) == (1, 1, {"unreadable answer": 1})
    assert (score["judge"], score["judging"]["prompts"]) == ("judge (stated-model, v7, own texts)", "own")
    written = json.loads((out / "judge/physics/metrics.json").read_text())["5"]
    assert (written["knowledge_score"], written["quality_score"]) == (2, None)
    assert "Fine." in written["knowledge_reasoning"]
    assert len(server.requests) == 5


def write_rise(folder: Path, category: str, **fields: Any) -> Path:
    """Writes one edit of RISEBench. Returns the folder."""
    folder.mkdir()
    for name, colour in (("a.png", (1, 1, 1)), ("ref.png", (2, 2, 2))):
        Image.new("RGB", (900, 450), colour).save(folder / name)
    record = {"index": "9", "category": category, "subtask": "any", "instruction": "solve", "image": "a.png", **fields}
    (folder / "datav2_total_w_subtask.json").write_text(json.dumps([record]))
    return folder


ANSWER = {"reference": "a cup"}
BEFORE, RESULT, REFERENCE = "before", "result", "reference"


@pytest.mark.parametrize(
    ("category", "fields", "asked"),
    [
        (
            "temporal_reasoning",
            ANSWER,
            {
                "prompt_consist": [BEFORE, RESULT],
                "prompt_reasoning": [RESULT],
                "prompt_generation": [RESULT],
            },
        ),
        (
            "causal_reasoning",
            {**ANSWER, "reasoning_img": True, "consistency_free": True},
            {"prompt_reasoning_w_input": [BEFORE, RESULT], "prompt_generation": [RESULT]},
        ),
        (
            "spatial_reasoning",
            ANSWER,
            {
                "prompt_spatial_cons": [BEFORE, RESULT],
                "prompt_spatial_ref": [RESULT],
                "prompt_spatial_qual": [RESULT],
            },
        ),
        (
            "spatial_reasoning",
            {**ANSWER, "reasoning_img": True},
            {
                "prompt_spatial_cons": [BEFORE, RESULT],
                "prompt_spatial_ref_w_input": [BEFORE, RESULT],
                "prompt_spatial_qual": [RESULT],
            },
        ),
        (
            "spatial_reasoning",
            {"reference_img": "ref.png"},
            {
                "prompt_spatial_cons": [REFERENCE, RESULT],
                "prompt_spatial_ref_img": [REFERENCE, RESULT],
                "prompt_spatial_qual": [RESULT],
            },
        ),
        (
            "logical_reasoning",
            {"reference_txt": "seven"},
            {"prompt_logical_cons_ans": [BEFORE, RESULT], "prompt_logical_txt": [RESULT]},
        ),
        (
            "logical_reasoning",
            {"reference_img": "ref.png"},
            {"prompt_logical_cons": [REFERENCE, RESULT], "prompt_logical_img": [REFERENCE, RESULT]},
        ),
        (
            "logical_reasoning",
            {"reference_img": "ref.png", "reasoning_wo_ins": True},
            {"prompt_logical_cons": [REFERENCE, RESULT], "prompt_logical_img_wo_q": [REFERENCE, RESULT]},
        ),
    ],
    ids=[
        *("temporal", "free_with_source", "spatial", "spatial_with_source", "spatial_reference"),
        *("logical_text", "logical_image", "logical_without_question"),
    ],
)
def test_rise_asks_and_shows_by_category_and_fields(tmp_path, category, fields, asked):
    data = write_rise(tmp_path / "data", category, **fields)
    out = write_generated(tmp_path / "out", "rise", data)
    benchmark = BENCHMARKS["rise"]
    [item] = benchmark.read(data).items
    asks = benchmark.judging.asks(data, out, item, out / benchmark.picture(item, 0, "base"))
    assert {ask.template: [shown(file) for file in ask.pictures] for ask in asks} == asked


def shown(file: Path) -> str:
    """Which picture it is, by its colour and size."""
    with Image.open(file) as image:
        assert image.format == "JPEG"
        assert max(image.size) <= 768
        return {1: BEFORE, 2: REFERENCE}.get(image.getpixel((0, 0))[0], RESULT)


@pytest.mark.parametrize(
    ("category", "message"),
    [("temporal_reasoning", "there is no reference"), ("logical_reasoning", "there is no reference_txt and no")],
)
def test_an_edit_of_rise_without_a_reference_is_named(tmp_path, category, message):
    data = write_rise(tmp_path / "data", category)
    out = write_generated(tmp_path / "out", "rise", data)
    benchmark = BENCHMARKS["rise"]
    [item] = benchmark.read(data).items
    with pytest.raises(BenchmarkError, match=message):
        benchmark.judging.asks(data, out, item, out / benchmark.picture(item, 0, "base"))


@pytest.mark.parametrize(
    ("category", "fields", "ratings", "expected"),
    [
        ("causal_reasoning", ANSWER, {"consist": 4, "reasoning": 5, "generation": 5}, (0.0, 4.7)),
        ("causal_reasoning", {**ANSWER, "consistency_free": True}, {"reasoning": 5, "generation": 5}, (100.0, 5.0)),
        ("logical_reasoning", {"reference_txt": "seven"}, {"cons_ans": 1, "logical_txt": 1}, (100.0, 5.0)),
        ("logical_reasoning", {"reference_txt": "seven"}, {"cons_ans": 1, "logical_txt": 0}, (0.0, (1.5 + 0.7) / 2)),
    ],
    ids=["all_three", "free", "logical_right", "logical_wrong"],
)
def test_rise_is_scored_from_the_last_lines_of_answers(tmp_path, category, fields, ratings, expected):
    data = write_rise(tmp_path / "data", category, **fields)
    out = write_generated(tmp_path / "out", "rise", data)
    prompts = {f"prompt_{name}" if name != "cons_ans" else "prompt_logical_cons_ans": name for name in ratings}
    score, _ = judged(
        out, data, lambda text, times: says(f"It is so.\n\n**Final Score:** **{ratings[text]}**"), prompts=prompts
    )
    assert score["averages"]["accuracy"] == pytest.approx(expected[0])
    assert score["averages"]["score, (s - 1) x 25"] == pytest.approx(25 * (expected[1] - 1))


def test_an_edit_of_rise_that_lacks_one_rating_failed(tmp_path):
    data = write_rise(tmp_path / "data", "logical_reasoning", reference_txt="seven")
    file = data / "datav2_total_w_subtask.json"
    [record] = json.loads(file.read_text())
    file.write_text(json.dumps([record, {**record, "index": "10", "instruction": "the other"}]))
    out = write_generated(tmp_path / "out", "rise", data)
    answers = {True: says("Final Score: 5"), False: says("Final Score: 1")}
    score, _ = judged(out, data, lambda text, times: answers["Puzzle: the other" in text])
    assert (score["items"], score["failed"], score["items_expected"]) == ({"9": 1.0}, 1, 2)


def test_unigen_pools_test_points_of_all_samples_by_dimension(tmp_path):
    data = write_unigen(tmp_path / "data")
    out = write_generated(tmp_path / "out", "unigen_en", data)
    answers = {0: "[1, 1]", 1: "[1, 0]", 2: '["1","0"]', 3: "`[0, 0]`"}
    numbers: list[str] = []

    def answer(text: str, times: int):
        numbers.append(text)
        return says(f"<analysis>['..', '..']</analysis>\n**<score>**{answers[times]}</score>".replace("**", ""))

    score, server = judged(out, data, answer, "--judge_jobs=1")
    assert len(server.requests) == 4
    assert "1. Style (the style, medium or artist): ink\n2. Attribute - Color (colours): a red cup" in numbers[0]
    # Style: 1 1 1 0; Attribute: 1 0 0 0.
    assert score["averages"] == {
        "mean of primary dimensions": pytest.approx(50.0),
        "mean of test points": pytest.approx(50.0),
    }
    assert score["categories"] == {"Attribute": 25.0, "Style": 75.0, "Attribute - Color": 25.0}
    assert (score["items"], score["pictures_scored"], score["pictures_expected"]) == ({"0": 50.0}, 4, 8)


def test_pictures_of_unigen_without_test_points_are_counted_and_no_score(tmp_path):
    data = write_unigen(tmp_path / "data")
    out = write_generated(tmp_path / "out", "unigen_en", data)
    score, _ = judged(out, data, lambda text, times: says("<score>[1, 1]</score>"))
    assert (score["items_scored"], score["failed"]) == (1, 4)
    assert score["judging"]["failed"] == {"nothing to ask": 4}


def test_unigen_asks_in_the_language_of_the_prompts_and_fills_the_scorers_own_text(tmp_path):
    benchmark = BENCHMARKS["unigen_zh"]
    fields = {"主类别": "风格", "考点": ["属性-颜色"], "考点对应描述": ["红色的杯子"]}
    file = tmp_path / "test_prompts_zh.csv"
    shown_fields = json.dumps(fields, ensure_ascii=False).replace('"', '""')
    file.write_text(f'index,prompt_zh,sub_dims_zh\n0,杯子,"{shown_fields}"\n', encoding="utf-8")
    [item] = benchmark.read(file).items
    assert "1. 属性-颜色 (颜色): 红色的杯子" in filled(benchmark.judging.texts["unigen"], item)
    published = "{prompt} / {testpoint} / {explanation} / {test_explanation}"
    assert filled(published, item) == "杯子 / ['属性-颜色'] / 属性-颜色: 颜色 / 属性-颜色: 红色的杯子"


@pytest.mark.parametrize(
    ("answer", "readable"),
    [
        ("<score>[1, 0]</score>", True),
        ("<score>```json\n[1, 0]\n```</score>", True),
        ("<score>[1，0]</score>", True),
        ("<score>[1]</score>", False),
        ("<score>[1, 0, 1]</score>", False),
        ("<score>[1, 2]</score>", False),
        ("<score>[1, 0]", False),
        ("[1, 0]", False),
    ],
)
def test_unigen_reads_as_many_scores_as_there_are_test_points(tmp_path, answer, readable):
    benchmark = BENCHMARKS["unigen_en"]
    item, _ = benchmark.read(write_unigen(tmp_path)).items
    assert benchmark.judging.readable(item, "unigen", answer) == readable


@pytest.mark.parametrize("name", ["kris", "rise", "unigen_en", "unigen_zh_long"])
def test_own_texts_have_only_places_that_items_fill(name):
    places = {"prompt", "explanation", "N", "reference", "points"}
    answers = {"analysis", "/analysis", "score", "/score"}
    for text in BENCHMARKS[name].judging.texts.values():
        assert {part.split(">")[0] for part in text.split("<")[1:]} <= places | answers
